"""What this process has logged."""

import json
from typing import Any

import pytest

Capture = pytest.CaptureFixture[str]


def lines(capture: Capture) -> list[dict[str, Any]]:
    """What we have logged since the last time; every line is JSON. The test's own client logs here too."""
    logged = [json.loads(line) for line in capture.readouterr().err.splitlines()]
    return [line for line in logged if line["logger"].startswith("rowlock")]
