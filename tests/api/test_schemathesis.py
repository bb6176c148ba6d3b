"""Schemathesis reads the OpenAPI document and tries to find an undocumented answer."""

import asyncio
import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import httpx

from dev.postgres import Postgres
from service.app import create_app
from service.database import Connection
from service.settings import Settings
from tests.stage.factories import (
    Account,
    OnSale,
    book,
    make_customer,
    make_manager,
    make_overdue,
    make_session,
    pay,
    release,
)
from tests.stage.processes import api_process

SEED = 20_300_601
EXAMPLES_MAX = 20
"""Random cases for each operation, besides those that cover its schema systematically."""
ELSEWHERE_REFUSED = "405"
"""Schemathesis also tries methods that a path does not have."""

# A JSON schema can't express every rule, such as placements that are equal in NFC, so this check is off.
EXCLUDED_CHECKS = "positive_data_acceptance"

# Without existing ids every answer would be "not found".
CONFIG = """
[auth]
auto-signup = false

[dictionaries.seats]
values = {seat_ids}

[dictionaries.sessions]
values = [{session_id}]

[dictionaries.reservations]
values = {reservation_ids}

[parameters]
"path.seatId" = {{ dictionary = "seats", probability = 0.6 }}
"path.sessionId" = {{ dictionary = "sessions", probability = 0.6 }}
"path.reservationId" = {{ dictionary = "reservations", probability = 0.6 }}

[[operations]]
include-tag = "manager"
headers = {{ Authorization = "Bearer {askers.manager.token}" }}

[[operations]]
include-tag = "customer"
headers = {{ Authorization = "Bearer {askers.customer.token}" }}
"""


@dataclass(frozen=True, slots=True)
class Askers:
    """The accounts whose tokens the requests carry."""

    customer: Account
    manager: Account


@dataclass(frozen=True, slots=True)
class Run:
    """Schemathesis' output and verdict, and the number of answers of each operation by status."""

    output: str
    code: int | None
    answers: dict[str, dict[str, int]]


async def test_no_answer_is_a_5xx_or_undocumented(
    postgres: Postgres, sql: Connection, settings: Settings, tmp_path: Path
) -> None:
    askers = Askers(await make_customer(sql, settings), await make_manager(sql, settings))
    session = await make_session(sql, settings, 100)
    unlimited = {"seats_per_customer_max": 1_000, "hold_seconds": 3_600, "sign_in_delay_ms_max": 0}
    async with api_process(postgres.url(), **unlimited) as api:
        config = await write_config(sql, tmp_path, api.url, session, askers)
        run = await run_schemathesis(config, f"{api.url}/openapi.json")
        assert "request failed" not in api.output()
    assert run.code == 0, run.output
    documented = {
        f"{method.upper()} {path}": set(operation["responses"])
        for path, methods in create_app(settings).openapi()["paths"].items()
        for method, operation in methods.items()
    }
    assert run.answers.keys() == documented.keys()
    for operation, answers in run.answers.items():
        assert answers.keys() <= documented[operation] | {ELSEWHERE_REFUSED}, operation
        # It passed authentication and validation, and was refused where a refusal is possible.
        assert any(status.startswith("2") for status in answers), (operation, answers)
        assert answers.keys() & {"400", "401", "404", "409", "422"} or operation.endswith("z"), (operation, answers)
        assert "409" in answers or "409" not in documented[operation], (operation, answers)
    assert await sql.fetchval("select count(*) from payments") > 0


async def write_config(sql: Connection, folder: Path, url: str, session: OnSale, askers: Askers) -> Path:
    """Available seats, and reservations that can and can't be paid or released."""
    async with httpx.AsyncClient(base_url=url) as client:
        held = [
            (await book(client, askers.customer, seat_id)).json()["reservationId"] for seat_id in session.seat_ids[-20:]
        ]
        for id_ in held[:4]:
            assert (await pay(client, askers.customer, id_)).status_code == 200
        for id_ in held[4:8]:
            assert (await release(client, askers.customer, id_)).status_code == 200
        await make_overdue(sql, *map(UUID, held[8:12]))
    config = folder / "schemathesis.toml"
    config.write_text(
        CONFIG.format(
            seat_ids=list(session.seat_ids[:-20]),
            session_id=session.id,
            reservation_ids=json.dumps(held),
            askers=askers,
        )
    )
    return config


async def run_schemathesis(config: Path, url: str) -> Run:
    """Runs Schemathesis to its end."""
    report = config.with_name("report.ndjson")
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config), "run", url,
        "--seed", str(SEED), "--max-examples", str(EXAMPLES_MAX), "--phases", "examples,coverage,fuzzing",
        "--exclude-checks", EXCLUDED_CHECKS, "--continue-on-failure", "--generation-database", "none",
        "--report", "ndjson", "--report-ndjson-path", str(report), "--warnings", "off", "--no-color",
        cwd=config.parent, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output = (await process.communicate())[0].decode()
    return Run(output, process.returncode, read_answers(report))


def read_answers(report: Path) -> dict[str, dict[str, int]]:
    """The number of answers of each operation by status."""
    answers: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for line in report.read_text().splitlines():
        recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
        for interaction in recorder.get("interactions", {}).values():
            answers[recorder["label"]][str(interaction["response"]["status_code"])] += 1
    return answers
