"""A misspelt variable is reported at the start, with the setting that it may have meant."""

import json
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from dev.postgres import Postgres
from service.settings import SECRETS_DIR, Settings
from service.settings.unknown import unknown, warn_of_unknown
from tests.stage.processes import api_process, expirer_process

MISSPELT = {
    "ROWLOCK_HOLD_SECS": "ROWLOCK_HOLD_SECONDS",
    "ROWLOCK_DATABASE": "ROWLOCK_DATABASE_URL",
    "rowlock_pool_sise": "ROWLOCK_POOL_SIZE",
    "ROWLOCK_EXPIRER_METRIC_PORT": "ROWLOCK_EXPIRER_METRICS_PORT",
    "ROWLOCK_QQQQQQQQ": None,
}
LINKS = {
    "ROWLOCK_API_SERVICE_HOST": "10.0.0.1",
    "ROWLOCK_API_SERVICE_PORT": "80",
    "ROWLOCK_API_SERVICE_PORT_HTTP": "80",
    "ROWLOCK_API_PORT": "tcp://10.0.0.1:80",
    "ROWLOCK_API_PORT_80_TCP": "tcp://10.0.0.1:80",
    "ROWLOCK_API_PORT_80_TCP_PROTO": "tcp",
    "ROWLOCK_API_PORT_80_TCP_PORT": "80",
    "ROWLOCK_API_PORT_80_TCP_ADDR": "10.0.0.1",
    "ROWLOCK_SERVICE_HOST": "10.0.0.1",
    "ROWLOCK_RABBITMQ_HEADLESS_PORT_5672_TCP_ADDR": "10.0.0.1",
}


@pytest.mark.parametrize(("name", "nearest"), MISSPELT.items())
def test_unknown_variable_is_named_with_its_nearest_setting(name: str, nearest: str | None) -> None:
    assert unknown({name: "120", "PATH": "/bin"}) == {name: nearest}


@pytest.mark.parametrize("name", [f"ROWLOCK_{field.upper()}" for field in Settings.model_fields])
def test_every_setting_is_known_in_any_case(name: str) -> None:
    assert unknown({name: "1", name.lower(): "1"}) == {}


@pytest.mark.parametrize(("name", "value"), LINKS.items())
def test_service_links_are_no_mistakes(name: str, value: str) -> None:
    assert unknown({name: value}) == {}


def test_misspelt_file_of_the_secrets_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rowlock_token_secert", "..data"):
        (tmp_path / name).touch()
    monkeypatch.setenv(SECRETS_DIR, str(tmp_path))
    with capture_logs() as lines:
        warn_of_unknown()
    assert {line["setting"]: line["nearest"] for line in lines if line["setting"] == "rowlock_token_secert"} == {
        "rowlock_token_secert": "ROWLOCK_TOKEN_SECRET"
    }
    assert "..data" not in {line["setting"] for line in lines}


@pytest.mark.parametrize("process", [api_process, expirer_process])
async def test_both_processes_warn_once(postgres: Postgres, process: Any) -> None:
    async with process(postgres.url(), hold_secs=120) as started:
        lines = [json.loads(line) for line in started.output().splitlines() if line.startswith("{")]
    (warning,) = [line for line in lines if line["event"].startswith("unknown setting")]
    assert (warning["setting"], warning["nearest"]) == ("ROWLOCK_HOLD_SECS", "ROWLOCK_HOLD_SECONDS")
