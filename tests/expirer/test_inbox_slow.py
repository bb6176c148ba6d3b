"""A batch of dead letters that takes PostgreSQL too long: it may wait for several holds, so each is tried alone."""

from dev.postgres import Postgres
from service.broker.topology import PARKED_QUEUE
from service.database import Connection, create_engine
from tests.stage.broker import until_waiting
from tests.stage.forcing import patient_settings
from tests.stage.holdings import count_states
from tests.stage.inboxes import inbox_of, make_dead_letters, step_with, unsettled
from tests.stage.metering import about, moved
from tests.stage.relaying import Broker

# A sequence counts what is rolled back too.
SLOW_AT_FIRST = """
create sequence tries;
create function be_slow() returns trigger language plpgsql as $$
begin
    if nextval('tries') = 1 then
        perform pg_sleep(60);
    end if;
    return null;
end $$;
create trigger be_slow before update on reservations for each statement execute function be_slow();
"""


async def test_batch_that_takes_too_long_is_settled_one_by_one(
    postgres: Postgres, sql: Connection, rabbitmq: Broker
) -> None:
    settings = patient_settings(postgres, broker_url=rabbitmq.url)
    await make_dead_letters(sql, settings, rabbitmq.url, 3)
    engine = create_engine(settings.model_copy(update={"statement_timeout_ms": 5_000}), "rowlock-test")
    await sql.execute(SLOW_AT_FIRST)
    try:
        async with inbox_of(engine, settings) as inbox:
            with moved() as grown:
                assert await step_with(inbox, 3) == 0
        assert await sql.fetchval("select last_value from tries") == 1 + 3, "together, and then each alone"
    finally:
        await sql.execute("drop trigger be_slow on reservations; drop function be_slow; drop sequence tries")
        await engine.dispose()
    assert about(grown, "database_errors", "inbox_pauses", "dead_letters") == {
        "database_errors_total statement_timeout": 1,
        "dead_letters_total acknowledged": 3,
    }
    assert await count_states(sql) == {"EXPIRED": 3}
    assert unsettled(rabbitmq.url) == 0
    await until_waiting(rabbitmq.url, PARKED_QUEUE, 0)
