"""What is shown of the self-audit: the last round and what the current one has added, and nothing that is not known."""

import math
from typing import NoReturn

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from expirer.loops.audit import LOOK_SECONDS, Audit
from service import database
from service.audit.slices import Limits
from service.audit.verdicts import Found, Verdict, keep_turn, take_turn, write_verdict
from service.database import Connection
from service.errors import DatabaseAway
from service.settings import Settings
from tests.stage.audits import LET_A_ROUND_BE_DUE
from tests.stage.metering import gauge

pytestmark = pytest.mark.oldest_postgresql

UNFINISHED = ["violations log", "unlooked maps", "last_round_timestamp_seconds", "round_duration_seconds"]


def fail(*_: object) -> NoReturn:
    """In place of a connection."""
    raise DatabaseAway


@pytest.mark.parametrize("known_seconds", [0, 60])
@pytest.mark.parametrize("is_its_turn", [False, True])
async def test_a_replica_without_postgresql_soon_shows_nothing(  # noqa: PLR0913 - fixtures
    engine: AsyncEngine,
    sql: Connection,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_its_turn: bool,
    known_seconds: float,
) -> None:
    began = await take_turn(sql, "a", 60)
    await write_verdict(sql, "a", Verdict(began, None, {}, {"money": Found(2)}, {"maps": 3}))
    audit = Audit(engine, settings, "b", None, Limits(known_seconds=known_seconds, save_seconds=0))
    assert await audit.step() == LOOK_SECONDS
    if is_its_turn:
        await sql.execute(LET_A_ROUND_BE_DUE)
        assert await audit.step() == 0
    with monkeypatch.context() as patched:
        patched.setattr(database, "_connection", fail)
        with pytest.raises(DatabaseAway):
            await audit.step()
    shown = [math.isnan(gauge(f"audit_{name}")) for name in ("violations money", *UNFINISHED)]
    assert shown == [known_seconds == 0] * len(shown)
    await audit.step()
    assert (gauge("audit_violations money"), gauge("audit_violations log"), gauge("audit_unlooked maps")) == (2, 0, 3)
    assert gauge("audit_last_round_timestamp_seconds") > 0
    await audit.close()


async def test_before_the_first_verdict_only_violations_are_shown(
    engine: AsyncEngine, sql: Connection, settings: Settings
) -> None:
    await take_turn(sql, "a", 60)
    assert await keep_turn(sql, "a", {"money": Found(1)})
    await Audit(engine, settings, "b", None).step()
    assert all(math.isnan(gauge(f"audit_{name}")) for name in UNFINISHED)
    assert gauge("audit_violations money") == 1


async def test_a_replica_that_never_reached_postgresql_shows_nothing(
    engine: AsyncEngine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_connection", fail)
    with pytest.raises(DatabaseAway):
        await Audit(engine, settings, "a", None).step()
    assert math.isnan(gauge("audit_violations owners"))
