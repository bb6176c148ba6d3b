"""Anonymous clients that do not read, and connections that send nothing: the API stays small, and sells on."""

import socket
import time
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx
import psutil

from dev.containers import Container
from dev.postgres import Postgres
from dev.servers import Redis
from service.database import Connection
from service.settings import Settings
from tests.stage.factories import book, make_customers, make_session
from tests.stage.processes import api_process

READERS, IDLE = 1_000, 3_000
SEATS = 100_000
MIB_MAX = 300
HOLDS = 20
HOLD_SECONDS_MAX = 5.0
"""For each hold, on a machine that makes and sends nine gigabytes of answers meanwhile."""


async def test_clients_that_neither_read_nor_send_cost_little(
    postgres: Postgres, sql: Connection, settings: Settings, redis: Redis | Container
) -> None:
    large, small = await make_session(sql, settings, SEATS), await make_session(sql, settings, HOLDS)
    customers = await make_customers(sql, settings, HOLDS)
    async with (
        api_process(postgres.url(), redis_url=redis.url, request_head_seconds=300) as api,
        httpx.AsyncClient(base_url=api.url, timeout=60) as client,
    ):
        (worker,) = psutil.Process(api.process.pid).children()
        address = urlsplit(api.url)
        place = str(address.hostname), int(address.port or 0)
        assert (await client.get(f"/customer/session/{large.id}")).status_code == 200
        asking = b"GET /customer/session/%d HTTP/1.1\r\nHost: rowlock\r\n\r\n" % large.id
        mib_max = 0.0
        with ExitStack() as stack:
            for n in range(READERS + IDLE):
                connection = stack.enter_context(socket.create_connection(place, timeout=60))
                if n < READERS:
                    connection.sendall(asking)
                if n % 100 == 0:
                    assert (await client.get("/readyz")).status_code == 200
                    mib_max = max(mib_max, worker.memory_info().rss / 2**20)
            for customer, seat_id in zip(customers, small.seat_ids, strict=True):
                began = time.monotonic()
                assert (await book(client, customer, seat_id)).status_code == 201
                assert time.monotonic() - began < HOLD_SECONDS_MAX
                mib_max = max(mib_max, worker.memory_info().rss / 2**20)
    assert mib_max < MIB_MAX
