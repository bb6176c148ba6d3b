"""PostgreSQL's statements as spans, named so that a trace shows lock waits and the COMMIT."""

import re
from collections.abc import Coroutine
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import asyncpg

from service.observability import tracing

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

LOCKS = re.compile(r"\bfor no key update(?: of (?P<table>\w+))?(?P<skip> skip locked)?")
TARGET = re.compile(r"\b(?:insert into|update|delete from|from|join) (?!unnest\b)(?P<table>[a-z_]+)\b(?![.(])")
NAMES_MAX = 256


class TracedConnection(Connection):
    """asyncpg's connection, with a span for each statement where there is a trace. Otherwise it only checks for one."""

    __slots__ = ()

    def fetch(self, query: str, *args: Any, **options: Any) -> Coroutine[Any, Any, Any]:
        """As in asyncpg."""
        return _traced(query, super().fetch(query, *args, **options))

    def fetchrow(self, query: str, *args: Any, **options: Any) -> Coroutine[Any, Any, Any]:
        """As in asyncpg."""
        return _traced(query, super().fetchrow(query, *args, **options))

    def fetchval(self, query: str, *args: Any, **options: Any) -> Coroutine[Any, Any, Any]:
        """As in asyncpg."""
        return _traced(query, super().fetchval(query, *args, **options))

    def execute(self, query: str, *args: Any, **options: Any) -> Coroutine[Any, Any, Any]:
        """As in asyncpg."""
        return _traced(query, super().execute(query, *args, **options))


def _traced(query: str, running: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
    return running if tracing.current.get() is None else _in_span(query, running)


async def _in_span(query: str, running: Coroutine[Any, Any, Any]) -> Any:
    name = name_of(query)
    with tracing.step(name) as span:
        result = await running
        if span is not None:
            # The statement only, never its arguments.
            span.set_attributes({"db.system.name": "postgresql", "db.query.summary": name, "db.query.text": query})
            if isinstance(result, list):
                span.set_attribute("db.response.returned_rows", len(result))
    return result


@lru_cache(NAMES_MAX)
def name_of(query: str) -> str:
    """The statement's verb and table: `lock seats`, `insert events`, `commit`."""
    text = " ".join(query.split())
    lock = LOCKS.search(text)
    verb = "lock" if lock else text.partition(" ")[0]
    if verb == "with":
        verb = "write"
    if lock and lock["table"]:
        alias = re.search(rf"\b(?:from|join) (\w+) as {lock['table']}\b", text)
        table: str | None = alias[1] if alias else lock["table"]
    else:
        target = TARGET.search(text)
        table = target["table"] if target else None
    return " ".join(part for part in (verb, table, "skip locked" if lock and lock["skip"] else None) if part)
