"""Limits on the size of a body, and on the part of it that a refusal repeats."""

import httpx

from service.database import Connection
from service.settings import Settings
from tests.stage.factories import make_customer, make_manager


async def test_only_a_manager_may_send_a_large_body(
    client: httpx.AsyncClient, sql: Connection, settings: Settings
) -> None:
    body = b'{"movie": "' + b"x" * settings.body_bytes_max + b'"}'
    manager, customer = await make_manager(sql, settings), await make_customer(sql, settings)
    statuses = [
        (
            await client.post("/manager/create", content=body, headers={"Content-Type": "application/json"} | headers)
        ).status_code
        for headers in (manager.headers, customer.headers, {}, {"Authorization": "Bearer x"})
    ]
    assert statuses == [422, 413, 413, 413]
    # A refusal repeats only the start of a long field name.
    long = await client.post(
        "/sign-in", content=b'{"' + b"x" * 60_000 + b'": 1}', headers={"Content-Type": "application/json"}
    )
    assert long.status_code == 422
    assert len(long.content) < 2_000
