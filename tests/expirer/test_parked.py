"""`python -m expirer parked`: an operator lists parked messages, sends them back after a fix, or drops them."""

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args
from uuid import uuid4

import orjson
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.postgres import Postgres
from dev.processes import free_port
from service.broker.messages import Hint
from service.broker.parked import Why
from service.broker.topology import DELIVERIES_MAX, EXPIRED_QUEUE, PARKED_QUEUE
from service.database import Connection
from service.settings import Settings
from tests.stage.broker import connected, declare_inbox, send_hints, send_letter, until_waiting
from tests.stage.commands import Result, expirer_command
from tests.stage.forcing import patient_settings, state_of
from tests.stage.holdings import hints_of
from tests.stage.inboxes import inbox_of, make_dead_letters, mend, settle_all, tamper
from tests.stage.relaying import Broker

PAGE = Path(__file__).parents[2] / "docs" / "runbooks" / "parked-messages.md"
BODIES = (b"first", b"second", b"third")


@pytest.fixture
def settings(postgres: Postgres, sql: Connection, rabbitmq: Broker) -> Settings:  # noqa: ARG001 - emptied first
    """With a broker."""
    return patient_settings(postgres, broker_url=rabbitmq.url, inbox_linger_ms=100)


@pytest.fixture
async def three_parked(engine: AsyncEngine, settings: Settings, rabbitmq: Broker) -> None:
    """Three unreadable messages, in the order of their arrival."""
    for body in BODIES:
        send_letter(rabbitmq.url, body)
    async with inbox_of(engine, settings) as inbox:
        await settle_all(inbox, rabbitmq.url)
    await until_waiting(rabbitmq.url, PARKED_QUEUE, 3)


async def parked(settings: Settings, *arguments: str) -> Result:
    """What the command did."""
    assert settings.broker_url is not None
    urls = settings.database_url.get_secret_value(), settings.broker_url.get_secret_value()
    return await expirer_command(urls[0], "parked", *arguments, broker_url=urls[1])


async def names_listed(settings: Settings) -> dict[str, str]:
    """The name of each body in the list, in its order."""
    done = await parked(settings, "list")
    assert (done.code, done.errors) == (0, "")
    count, *lines = done.output.splitlines()
    assert count == f"{len(lines)} parked"
    return {line.split()[-1]: line.split()[0] for line in lines}


async def bodies_listed(settings: Settings) -> list[str]:
    """The bodies in the list, in its order."""
    return list(await names_listed(settings))


@pytest.mark.usefixtures("three_parked")
async def test_list_names_each_message_in_order_and_takes_none(settings: Settings, rabbitmq: Broker) -> None:
    first = await names_listed(settings)
    assert list(first) == ["first", "second", "third"]
    assert len(set(first.values())) == 3
    for _ in range(2):
        assert await names_listed(settings) == first, "a name is for good"
        await until_waiting(rabbitmq.url, PARKED_QUEUE, 3)
    for line in (await parked(settings, "list")).output.splitlines()[1:]:
        assert line.split()[1:3] == ["unreadable", "rejected"]


async def test_message_that_no_inbox_parked_is_not_listed_as_failing(settings: Settings, rabbitmq: Broker) -> None:
    with connected(rabbitmq.url) as connection:
        declare_inbox(connection)
        for body in (Hint(uuid4(), datetime.now(UTC)).encode(), b"{}"):
            connection.Producer().publish(body, routing_key=PARKED_QUEUE.name)
    await until_waiting(rabbitmq.url, PARKED_QUEUE, 2)
    lines = (await parked(settings, "list")).output.splitlines()[1:]
    assert [line.split()[1:3] for line in lines] == [["unsettled", "unknown"], ["unreadable", "unknown"]]


def test_the_page_says_what_to_do_with_each_kind() -> None:
    page = PAGE.read_text()
    assert re.findall("^- `(.*?)`:", page.partition("## Fix")[2], re.MULTILINE) == list(get_args(Why))
    assert f"{DELIVERIES_MAX:,} times" in page


def test_a_thousand_looks_at_a_message_lose_nothing(rabbitmq: Broker) -> None:
    with connected(rabbitmq.url) as connection:
        declare_inbox(connection)
        channel = connection.channel()
        queue = PARKED_QUEUE(channel)
        channel.confirm_select()
        channel.basic_publish_confirm(channel.prepare_message(b"{}", properties={}), "", queue.name)
        for _ in range(1_000):
            queue.get().requeue()
        assert queue.get().body == b"{}"


@pytest.mark.usefixtures("three_parked")
async def test_show_prints_a_message_as_a_whole(settings: Settings) -> None:
    name = (await names_listed(settings))["second"]
    done = await parked(settings, "show", name)
    assert (done.code, done.errors) == (0, "")
    shown = orjson.loads(done.output)
    assert (shown["name"], shown["why"], shown["reason"]) == (name, "unreadable", "rejected")
    assert shown["body"] == "second"
    assert shown["headers"]["x-death"][0]["queue"] == EXPIRED_QUEUE.name


@pytest.mark.usefixtures("three_parked")
async def test_drop_removes_one_message_by_name_or_all(
    settings: Settings,
) -> None:
    names = await names_listed(settings)
    done = await parked(settings, "drop", names["first"])
    assert (done.code, done.output) == (0, "1 dropped\n")
    done = await parked(settings, "drop", names["second"])
    assert (done.code, done.output) == (0, "1 dropped\n")
    assert await names_listed(settings) == {"third": names["third"]}
    done = await parked(settings, "drop", "--all")
    assert (done.code, done.output) == (0, "1 dropped\n")
    assert await bodies_listed(settings) == []


@pytest.mark.usefixtures("three_parked")
async def test_requeue_sends_one_message_by_name_or_all(settings: Settings, rabbitmq: Broker) -> None:
    done = await parked(settings, "requeue", (await names_listed(settings))["second"])
    assert (done.code, done.output) == (0, "1 sent to the inbox\n")
    assert await bodies_listed(settings) == ["first", "third"]
    with connected(rabbitmq.url) as connection:
        assert EXPIRED_QUEUE(connection.channel()).get(no_ack=True).body == "second"
    done = await parked(settings, "requeue", "--all")
    assert (done.code, done.output) == (0, "2 sent to the inbox\n")
    assert await bodies_listed(settings) == []
    await until_waiting(rabbitmq.url, EXPIRED_QUEUE, 2)


async def test_requeued_message_is_settled_once_its_cause_is_fixed(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    (id_,) = await make_dead_letters(sql, settings, rabbitmq.url, 1)
    await tamper(sql, id_)
    async with inbox_of(engine, settings) as inbox:
        await settle_all(inbox, rabbitmq.url)
        await until_waiting(rabbitmq.url, PARKED_QUEUE, 1)
        listed = (await parked(settings, "list")).output
        assert str(id_) in listed
        assert listed.splitlines()[1].split()[1] == "failing"
        name = listed.splitlines()[1].split()[0]
        await parked(settings, "requeue", name)
        await settle_all(inbox, rabbitmq.url)
        await until_waiting(rabbitmq.url, PARKED_QUEUE, 1)
        await mend(sql, id_)
        assert (await parked(settings, "requeue", name)).code == 1, "parked again it has another name"
        await parked(settings, "requeue", "--all")
        await settle_all(inbox, rabbitmq.url)
    assert await state_of(sql, id_) == "EXPIRED"
    await until_waiting(rabbitmq.url, PARKED_QUEUE, 0)


async def test_undecompressable_message_is_listed_and_dropped(
    engine: AsyncEngine, settings: Settings, rabbitmq: Broker
) -> None:
    send_letter(rabbitmq.url, b"odd", headers={"compression": "application/x-bz2"})
    async with inbox_of(engine, settings) as inbox:
        await settle_all(inbox, rabbitmq.url)
    await until_waiting(rabbitmq.url, PARKED_QUEUE, 1)
    names = await names_listed(settings)
    assert list(names) == ["odd"]
    assert (await parked(settings, "drop", names["odd"])).output == "1 dropped\n"


async def test_long_message_is_listed_in_part_and_never_sent_on(settings: Settings, rabbitmq: Broker) -> None:
    with connected(rabbitmq.url) as connection:
        declare_inbox(connection)
        connection.Producer().publish(b"long" * 1_000_000, routing_key=PARKED_QUEUE.name)
    await until_waiting(rabbitmq.url, PARKED_QUEUE, 1)
    (body,) = names = await names_listed(settings)
    assert body == "long" * 20
    done = await parked(settings, "requeue", names[body])
    assert (done.code, done.errors.partition(" ")[2]) == (
        1,
        f"{names[body]} is too long for the inbox, which would park it again: drop it\n",
    )
    assert (await parked(settings, "requeue", "--all")).output == "0 sent to the inbox\n"
    assert (await parked(settings, "drop", "--all")).output == "1 dropped\n"


@pytest.mark.usefixtures("three_parked")
@pytest.mark.parametrize("verb", ["show", "requeue", "drop"])
async def test_a_name_that_nothing_has_changes_nothing_and_is_an_error(settings: Settings, verb: str) -> None:
    for name in ("1", "0" * 12):
        done = await parked(settings, verb, name)
        assert (done.code, done.output) == (1, "")
        assert done.errors == f"parked: no parked message is named {name}\n"
    assert await bodies_listed(settings) == ["first", "second", "third"]


@pytest.mark.parametrize(
    "arguments", [(), ("burn",), ("show",), ("drop",), ("requeue", "one", "two"), ("drop", "1", "--all")], ids=" ".join
)
async def test_what_is_no_command_is_answered_with_the_usage(arguments: tuple[str, ...]) -> None:
    done = await expirer_command("postgresql://rowlock@127.0.0.1/postgres", "parked", *arguments)
    assert (done.code, done.output) == (2, "")
    assert done.errors.startswith("usage: python -m expirer parked")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        pytest.param(None, "parked: ROWLOCK_BROKER_URL is not set", id="no setting"),
        pytest.param(f"amqp://guest:guest@127.0.0.1:{free_port()}//", "parked: RabbitMQ at 127.0.0.1", id="away"),
    ],
)
async def test_without_a_broker_the_command_says_so(url: str | None, message: str) -> None:
    given = {"broker_url": url} if url else {}
    done = await expirer_command("postgresql://rowlock@127.0.0.1/postgres", "parked", "list", **given)
    assert (done.code, done.output) == (1, "")
    assert done.errors.startswith(message)
    assert "Traceback" not in done.errors


async def test_requeueing_loses_nothing_while_an_inbox_is_at_work(
    engine: AsyncEngine, sql: Connection, settings: Settings, rabbitmq: Broker
) -> None:
    ids = await make_dead_letters(sql, settings, rabbitmq.url, 2)
    await tamper(sql, ids[0])
    async with inbox_of(engine, settings) as inbox:
        await settle_all(inbox, rabbitmq.url)
        await until_waiting(rabbitmq.url, PARKED_QUEUE, 1)
        await mend(sql, ids[0])
        send_hints(rabbitmq.url, await hints_of(sql, ids))
        await asyncio.gather(parked(settings, "requeue", "--all"), settle_all(inbox, rabbitmq.url))
        await settle_all(inbox, rabbitmq.url)
    assert [await state_of(sql, id_) for id_ in ids] == ["EXPIRED", "EXPIRED"]
