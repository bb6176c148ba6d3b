"""Letters that others have sent to the inbox's queue: they cost neither memory nor time, and few lines of the log."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from dev.postgres import Postgres
from service.broker.topology import EXPIRED_QUEUE, PARKED_QUEUE
from service.database import Connection
from service.settings import Settings
from tests.expirer.test_expirer import until_ended
from tests.stage.broker import until_waiting
from tests.stage.factories import make_overdue
from tests.stage.forcing import patient_settings
from tests.stage.holdings import make_holds
from tests.stage.inboxes import inbox_of, settle_all
from tests.stage.poison import harmless, poisonous, send_poison
from tests.stage.processes import Process, expirer_process
from tests.stage.relaying import Broker, cursor
from tests.stage.waiting import until

EACH = 100
MEMORY_MIB_MAX = 200
LINES_MAX = 20
SWEEP_SECONDS_MAX = 5


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, rabbitmq: Broker) -> Settings:  # noqa: ARG001 - emptied first
    """With a broker."""
    return patient_settings(postgres, broker_url=rabbitmq.url)


def memory_mib_max(process: Process) -> float:
    """The most that the process has ever had."""
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


async def test_three_thousand_poisoned_letters_disturb_nothing(
    postgres: Postgres, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    assert len(poisonous()) + len(harmless()) == 30
    expected = send_poison(rabbitmq.url, EACH)
    await until_waiting(rabbitmq.url, EXPIRED_QUEUE, 30 * EACH)
    ids = await make_holds(sql, settings, 20)
    async with expirer_process(
        postgres.url(), broker_url=rabbitmq.url, sweep_interval_ms=200, log_level="info"
    ) as expirer:
        await make_overdue(sql, *ids)
        async with asyncio.timeout(SWEEP_SECONDS_MAX):
            await until_ended(sql, *ids)

        async def are_published() -> bool:
            return bool(await sql.fetchval("select max(number) from events") == await cursor(sql))

        await until(are_published, "the events of the ended holds")
        await until_waiting(rabbitmq.url, PARKED_QUEUE, expected["parked"])
        await until_waiting(rabbitmq.url, EXPIRED_QUEUE, 0)
        memory = memory_mib_max(expirer)
        lines = [json.loads(line) for line in expirer.output().splitlines()]
    assert memory < MEMORY_MIB_MAX
    assert len([line for line in lines if line.get("loop") == "inbox"]) <= LINES_MAX
    assert {line["fault"] for line in lines if line["event"] == "dead letter parked"} == {
        "compressed",
        "too long",
        "unreadable headers",
        "not a hint",
    }
    assert not [line for line in lines if line["event"] == "step failed"]


async def test_letters_of_one_kind_share_a_line_of_the_log(
    engine: AsyncEngine, settings: Settings, rabbitmq: Broker
) -> None:
    send_poison(rabbitmq.url, 3)
    with capture_logs() as lines:
        async with inbox_of(engine, settings) as inbox:
            await settle_all(inbox, rabbitmq.url)
            await inbox.step()
    parked = [line["fault"] for line in lines if line["event"] == "dead letter parked"]
    assert sorted(parked) == sorted({*parked})
    (end,) = [line for line in lines if line["event"] == "no more dead letters are parked"]
    assert end["failures"] == 3 * len(poisonous())
