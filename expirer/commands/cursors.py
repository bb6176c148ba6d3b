"""`python -m expirer cursors list|drop`: lists the readers of the log, and drops one that was switched off for good.
While a reader has a cursor, the log keeps every event that it has not read.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence

from service import settings
from service.database import Connection, create_engine, transaction
from service.errors import NotReady, Unavailable
from service.events import cursors
from service.events.cursors import Cursor
from service.moments import rfc3339


def main(arguments: Sequence[str]) -> None:
    """Prints the result. Exits with 1 and the reason on failure."""
    parsed = _parser().parse_args(arguments)
    try:
        sys.stdout.write(asyncio.run(_run(parsed)) + "\n")
    except NotReady as error:
        sys.exit(f"cursors: {error}")
    except Unavailable as error:
        sys.exit(f"cursors: PostgreSQL does not answer as it should: {error!r}, {error.__cause__!r}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m expirer cursors", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="one line for each reader")
    verbs.add_parser("drop", help="remove a reader; switched on again, it starts at the end").add_argument("name")
    return parser


async def _run(parsed: argparse.Namespace) -> str:
    engine = create_engine(settings.load(), "rowlock-cursors")
    try:
        async with transaction(engine) as connection:
            readers = await cursors.list_cursors(connection)
            if parsed.verb == "list":
                return "\n".join([f"{len(readers)} readers", *map(_line, readers)])
            return await _drop(connection, readers, parsed.name)
    finally:
        await engine.dispose()


async def _drop(connection: Connection, readers: Sequence[Cursor], name: str) -> str:
    if name not in {cursor.name for cursor in readers}:
        raise NotReady(f"unknown reader: {name}")
    if not await cursors.drop_cursor(connection, name):
        raise NotReady(f"a process is reading for {name}: switch it off first")
    return f"{name} dropped"


def _line(cursor: Cursor) -> str:
    return (
        f"{cursor.name:<12}  {cursor.unread:>9} unread  moved {rfc3339(cursor.moved_at.replace(microsecond=0))}"
        f"  {cursor.reader or 'not running'}"
    )
