"""Checks of refusals: their answer, and that they have written nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from service.database import Connection

TYPE_PREFIX = "urn:rowlock:problem:"

EVERYTHING = """
select md5(coalesce((select string_agg(t::text, ',' order by t::text) from {table} as t), ''))
"""
TABLES = ("accounts", "sessions", "seats", "reservations", "payments", "events")


async def ledger(sql: Connection) -> dict[str, str]:
    """A hash of each table. The counts of failed sign-ins are not part of it."""
    return {table: await sql.fetchval(EVERYTHING.format(table=table)) for table in TABLES}


@dataclass(frozen=True, slots=True)
class Refused:
    """An expected refusal. `says` is a part of the message that names the broken rule."""

    status: int
    problem: str
    field: str | None = None
    says: str = ""

    def complaint(self, reply: httpx.Response) -> str | None:
        """The difference between the reply and the expectation; None if there is none."""
        if reply.headers.get("content-type") != "application/problem+json":
            return f"{reply.status_code} {reply.headers.get('content-type')} {reply.text[:300]}"
        body = reply.json()
        found = (reply.status_code, body["status"], body["type"].removeprefix(TYPE_PREFIX), body["requestId"])
        if found != (self.status, self.status, self.problem, reply.headers["x-request-id"]):
            return reply.text[:300]
        if not body["title"] or self.says not in body["detail"]:
            return reply.text[:300]
        return None if self.field is None else self._complaint_of_field(body)

    def _complaint_of_field(self, body: Mapping[str, Any]) -> str | None:
        messages = [error["message"] for error in body["errors"] if error["field"] == self.field]
        if not any(self.says in message for message in messages):
            return f"{self.field}: {self.says!r} is not in {body['errors'][:3]}"
        return None


def invalid(field: str, says: str) -> Refused:
    """422 for this field."""
    return Refused(422, "invalid-request", field, says)


@dataclass(frozen=True, slots=True)
class Case:
    """A request that must be refused."""

    name: str
    request: httpx.Request
    refused: Refused


async def wrongly_answered(client: httpx.AsyncClient, sql: Connection, cases: list[Case]) -> dict[str, str]:
    """The cases with another answer, and those that write something, so that one assertion shows them all."""
    wrong: dict[str, str] = {}
    before = await ledger(sql)
    for case in cases:
        reply = await client.send(case.request)
        if complaint := case.refused.complaint(reply):
            wrong[case.name] = complaint
        elif (after := await ledger(sql)) != before:
            wrong[case.name] = f"has written {[table for table in TABLES if after[table] != before[table]]}"
            before = after
    return wrong
