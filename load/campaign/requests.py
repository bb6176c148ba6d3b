"""How an operation is sent over HTTP, and which facts of its answer are recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson

from load.campaign.history import HISTORY, LIST, MAP, WRITES, Operation
from load.campaign.wire import Answer

REFUSED = 400
LISTED_MAX = 20
"""Sessions on sale are the first in the list."""
LETTERS = {"AVAILABLE": "A", "HELD": "H", "SOLD": "S"}


def request_of(kind: str, facts: dict[str, Any]) -> tuple[str, str, bytes]:
    """Method, path and body."""
    match kind:
        case "hold":
            return "POST", "/customer/book", orjson.dumps({"seatIds": facts["seats"]})
        case "pay":
            return "PUT", f"/customer/pay/{facts['reservation']}", b""
        case "release":
            return "DELETE", f"/customer/reservation/{facts['reservation']}", b""
        case "map":
            return "GET", f"/customer/session/{facts['session']}", b""
        case "list":
            return "GET", f"/customer/list-sessions?limit={LISTED_MAX}", b""
        case _:
            return "GET", "/customer/list-history?state=ALL&limit=20", b""


def recorded(operation: Operation, answered: int, answer: Answer) -> Operation:
    """The operation with what the checker reads of the answer."""
    facts: dict[str, Any] = {"answered": answered, "status": answer.status}
    if answer.status >= REFUSED:
        problem = orjson.loads(answer.body)
        return replace(operation, **facts, problem=problem["type"].rpartition(":")[2], body=answer.body.decode())
    reply = orjson.loads(answer.body)
    if operation.kind in WRITES:
        facts |= {"body": answer.body.decode(), "replayed": answer.headers.get("idempotency-replayed") == "true"}
        facts["reservation"] = reply["reservationId"]
    elif operation.kind == MAP:
        facts |= {
            "body": "".join(LETTERS[seat["state"]] for seat in reply["seats"]),
            "as_of": microseconds(reply["asOf"]),
        }
    elif operation.kind == LIST:
        facts["body"] = orjson.dumps(_counts(reply["sessions"], operation.session)).decode()
    elif operation.kind == HISTORY:
        facts["body"] = orjson.dumps({line["reservationId"]: line["state"] for line in reply["reservations"]}).decode()
    return replace(operation, **facts)


def _counts(listed: Sequence[Mapping[str, Any]], session: int) -> dict[str, int] | None:
    """The counts of the session, or None where the list lacks it: it was lost, or has long been out of use."""
    for item in listed:
        if item["sessionId"] == session:
            return {name: item["seats"][name] for name in ("available", "held", "sold")}
    return None


def microseconds(text: str) -> int:
    """A time of a reply, in microseconds since the epoch."""
    moment = datetime.fromisoformat(text)
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond
