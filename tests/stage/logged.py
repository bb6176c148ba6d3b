"""The log lines of this process."""

import json
from typing import Any

import pytest

Capture = pytest.CaptureFixture[str]


def lines(capture: Capture) -> list[dict[str, Any]]:
    """Our log lines since the last call. Every line is JSON. The test's own client also logs here."""
    logged = [json.loads(line) for line in capture.readouterr().err.splitlines()]
    return [line for line in logged if line["logger"].startswith("rowlock")]
