"""Foreign bytes in a seat map in Redis: its reader gets PostgreSQL's map, and the next one a new map from Redis."""

import random
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.database import Connection
from service.seatmap.encoding import DAMAGED, Counts, counts_of, freshness_of, kept_of, states_of
from service.settings import Settings
from tests.conftest import serving
from tests.stage.factories import book, make_customer, make_session
from tests.stage.seat_maps import Projection

answers = st.one_of(
    st.none(),
    st.just(DAMAGED),
    st.binary(max_size=20),
    st.binary(max_size=20).map(lambda tail: b"C" + tail),
    st.lists(st.one_of(st.none(), st.binary(max_size=5), st.just(b"9" * 5_000)), max_size=3),
)
SEATS = 16
ROUNDS = 30


@given(answers, answers, answers)
def test_any_answer_is_a_map_or_none_or_damaged(states: object, versions: object, fields: object) -> None:
    found = states_of(states)  # type: ignore[arg-type]
    assert not isinstance(found, bytes) or {*found} <= {*b"AHS"}
    counts = counts_of(states, fields)  # type: ignore[arg-type]
    assert counts in (None, DAMAGED) or isinstance(counts, Counts)
    kept_of(states, versions, fields)  # type: ignore[arg-type]


@given(st.one_of(answers, st.text(max_size=20).map(lambda text: f"{text}|1|{text}".encode(errors="replace"))))
def test_any_watermark_is_a_freshness_or_none(mark: object) -> None:
    freshness_of(mark, 1)  # type: ignore[arg-type]


Damage = Callable[[Projection, str, random.Random], Awaitable[object]]


async def _overwrite(projection: Projection, key: str, chance: random.Random) -> object:
    return await projection.redis.setrange(f"{key}:states", chance.randrange(1, SEATS + 1), chance.randbytes(1))


async def _cut(projection: Projection, key: str, chance: random.Random) -> object:
    return await projection.redis.set(f"{key}:states", b"C" + b"A" * chance.randrange(SEATS))


async def _lengthen(projection: Projection, key: str, chance: random.Random) -> object:
    return await projection.redis.append(f"{key}:states", b"A" * chance.randrange(1, 5))


async def _fill(projection: Projection, key: str, chance: random.Random) -> object:
    part = chance.choice(["states", "versions"])
    return await projection.redis.set(f"{key}:{part}", chance.randbytes(chance.randrange(80)))


async def _replace(projection: Projection, key: str, chance: random.Random) -> object:
    name = f"{key}:{chance.choice(['states', 'versions', 'meta'])}"
    await projection.redis.delete(name)
    return await projection.redis.rpush(name, "foreign")


async def _miscount(projection: Projection, key: str, chance: random.Random) -> object:
    value = chance.choice([b"-1", b"x", b"17", b"9" * 5_000, b""])
    return await projection.redis.hset(f"{key}:meta", "held", value)


DAMAGES: list[Damage] = [_overwrite, _cut, _lengthen, _fill, _replace, _miscount]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
async def test_a_damaged_map_is_never_shown_and_never_an_error(
    projection: Projection, sql: Connection, settings: Settings, damage: Damage
) -> None:
    customer = await make_customer(sql, settings)
    on_sale = await make_session(sql, settings, SEATS)
    chance = random.Random(damage.__name__)
    async with serving(projection.settings) as client:
        for n in range(ROUNDS):
            if n == 5:
                await book(client, customer, on_sale.seat_ids[3])
            await projection.step()
            await client.get(f"/customer/session/{on_sale.id}", headers=customer.headers)
            await damage(projection, f"rowlock:{await projection.epoch()}:{on_sale.id}", chance)
            reply = await client.get(f"/customer/session/{on_sale.id}", headers=customer.headers)
            listed = await client.get("/customer/list-sessions", headers=customer.headers)
            assert (reply.status_code, listed.status_code) == (200, 200)
            states = [seat["state"] for seat in reply.json()["seats"]]
            assert len(states) == SEATS
            assert {*states} <= {"AVAILABLE", "HELD", "SOLD"}
            (shown,) = listed.json()["sessions"]
            assert shown["seats"]["available"] >= 0
        await projection.redis.flushall()


async def test_an_unknown_letter_is_answered_by_postgresql_once(
    projection: Projection, sql: Connection, settings: Settings
) -> None:
    on_sale = await make_session(sql, settings, SEATS)
    await projection.step()
    assert (await projection.get(on_sale)).source == "redis"
    await projection.redis.setrange(f"rowlock:{await projection.epoch()}:{on_sale.id}:states", 3, b"X")
    damaged, rebuilt = await projection.get(on_sale), await projection.get(on_sale)
    assert (damaged.source, damaged.states) == ("postgresql", b"A" * SEATS)
    assert (rebuilt.source, rebuilt.states) == ("redis", b"A" * SEATS)


@pytest.mark.parametrize("states", [b"C", b"C" + b"A" * (SEATS - 1), b"C" + b"A" * (SEATS + 1)])
async def test_a_map_of_another_length_is_answered_by_postgresql_once(
    projection: Projection, sql: Connection, settings: Settings, states: bytes
) -> None:
    on_sale = await make_session(sql, settings, SEATS)
    await projection.step()
    await projection.get(on_sale)
    await projection.redis.set(f"rowlock:{await projection.epoch()}:{on_sale.id}:states", states)
    assert (await projection.get(on_sale)).source == "postgresql"
    assert (await projection.get(on_sale)).source == "redis"
