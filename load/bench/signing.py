"""More sign-ins than the service can check, while other customers hold seats."""

import asyncio
import json

import asyncpg
from argon2 import PasswordHasher
from uuid_utils.compat import uuid7

from load.bench import ours
from load.bench.answers import Answers
from load.bench.filling import add_buyers
from load.bench.generator import request
from load.bench.ground import Ground, check
from load.bench.latencies import latencies
from load.bench.limits import hold_requests
from load.bench.measured import Timing
from load.bench.ours import Setup, System, running

BURST = 200
"""Sign-ins at once, each second. An API process checks some tens a second, keeps 64 waiting and refuses the others."""
BURST_SECONDS_MAX = 60
PASSWORD = "correct horse battery"  # noqa: S105 - of accounts that exist during a measurement

ADD_ACCOUNTS = """
insert into accounts (id, email, name, password_hash, role)
select id, id || '@example.com', 'Test account', $2, 'CUSTOMER'
from unnest($1::uuid[]) as id
"""


async def signin(ground: Ground, timing: Timing) -> dict[str, float]:
    """Holds at a quarter of their capacity, alone and while 200 customers sign in at once each second."""
    setup = Setup(all_on=True)
    capacity = (await ours.holds(ground, timing, setup)).per_second
    rate, count = capacity / 4, int(capacity / 4 * timing.seconds)
    async with running(ground, setup) as system:
        buyers = await add_buyers(ground, system.database_url, 2 * count)
        requests = hold_requests(buyers)
        bursts = await _sign_ins(system, max(1, int(timing.seconds)))
        quiet = await system.send([next(requests) for _ in range(count)], Timing(0, timing.seconds), rate=rate)
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(
                system.send([next(requests) for _ in range(count)], Timing(0, timing.seconds), rate=rate)
            )
            signing = group.create_task(_burst_each_second(system, bursts))
        during, signed = sending.result(), signing.result()
        await check(system.database_url, held=quiet.total[201] + during.total[201])
    return {
        "holds a second at most": capacity,
        "sign-ins": sum(sum(answers.total.values()) for answers in signed),
        "sign-ins granted": sum(answers.total[200] for answers in signed),
        "sign-ins refused (503)": sum(answers.total[503] for answers in signed),
        "p99 ms of refused sign-ins": max(answers.percentile_ms(0.99, 503) for answers in signed),
        "longest ms of granted sign-ins": max(answers.percentile_ms(1, 200) for answers in signed),
        "holds refused": sum(n for status, n in during.total.items() if status != 201),  # noqa: PLR2004
        **latencies("of holds, quiet", quiet),
        **latencies("of holds, during the sign-ins", during),
        "p99 of holds, times quiet": during.p99_ms / max(quiet.p99_ms, 0.001),
    }


async def _sign_ins(system: System, bursts: int) -> list[list[bytes]]:
    """The requests of each burst. Every one is of another account: one account's attempts would delay each other."""
    ids = [uuid7() for _ in range(bursts * BURST)]
    sql = await asyncpg.connect(system.database_url)
    await sql.execute(ADD_ACCOUNTS, ids, PasswordHasher().hash(PASSWORD))
    await sql.close()
    bodies = [json.dumps({"email": f"{id_}@example.com", "password": PASSWORD}).encode() for id_ in ids]
    requests = [request("POST", "/sign-in", body=body) for body in bodies]
    return [requests[n : n + BURST] for n in range(0, len(requests), BURST)]


async def _burst_each_second(system: System, bursts: list[list[bytes]]) -> list[Answers]:
    async def burst(n: int, requests: list[bytes]) -> Answers:
        await asyncio.sleep(n)
        timing = Timing(0, BURST_SECONDS_MAX)
        return await system.send(requests, timing, f"sign-ins-{n}", connections=BURST, to_the_end=True)

    return await asyncio.gather(*(burst(n, requests) for n, requests in enumerate(bursts)))
