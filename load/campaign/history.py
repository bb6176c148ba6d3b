"""A history: every request with its answer and times, every fault, and in the end the ledger itself, as JSON lines.

Times are microseconds since the epoch, by the machine's clock. PostgreSQL and the clients run on one machine, so theirs
compare; API and expirer processes may run with wrong clocks, which nothing here reads.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson

T = TypeVar("T")

HOLD, PAY, RELEASE, MAP, LIST, HISTORY = "hold", "pay", "release", "map", "list", "history"
WRITES = (HOLD, PAY, RELEASE)
UNCHANGED = {"busy", "session-busy", "database-away", "not-ready", "too-many-requests"}
"""Problems that promise that nothing was changed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The service's settings, and the bounds that are checked."""

    hold_seconds: float
    seats_per_customer_max: int
    late_seconds_max: float
    """An overdue hold ends within this time of its deadline, or of the end of the faults."""
    answer_seconds_max: float = 12.0
    """A client gives up after this time."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One request. `answered` and `status` are None where no answer came: its outcome is unknown."""

    id: int
    kind: str
    customer: str
    invoked: int
    answered: int | None = None
    status: int | None = None
    problem: str | None = None
    """The last part of the problem's type, such as `seats-taken`."""
    seats: tuple[int, ...] = ()
    key: str | None = None
    reservation: str | None = None
    body: str | None = None
    replayed: bool = False
    as_of: int | None = None
    session: int = 0
    hang_up: bool = False
    """Whether the client hung up on purpose."""

    @property
    def reply(self) -> Any:
        """The body, read as JSON."""
        return orjson.loads(self.body or "null")

    @property
    def succeeded(self) -> bool:
        """Whether the service acknowledged the request."""
        return self.status in {200, 201}

    @property
    def ended(self) -> float:
        """When the answer came, or infinity: the request may be carried out at any time after it was sent."""
        return self.answered if self.answered is not None and not self.is_unknown else float("inf")

    @property
    def is_unknown(self) -> bool:
        """Whether the outcome is open: the answer is missing, or says so."""
        return self.status is None or self.problem == "outcome-unknown"

    @property
    def question(self) -> tuple[object, ...]:
        """Equal for a request and its repetitions, whose answers resolve its outcome."""
        name = self.key if self.kind == HOLD else self.reservation
        return self.kind, self.customer, name, self.seats

    @property
    def changed_nothing(self) -> bool:
        """Whether the answer promises that nothing was changed."""
        return self.status is not None and not self.succeeded and not self.is_unknown


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault with its begin and end. `back` is when the part served again, where that was before the end."""

    kind: str
    began: int
    ended: int
    back: int | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A seat in an event: its new state and version."""

    seat: int
    state: str
    version: int


@dataclass(frozen=True, slots=True)
class Event:
    """A row of the log, in the order of the numbers."""

    id: int
    kind: str
    session: int
    reservation: str | None
    at: int
    changes: tuple[Change, ...]
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """A row of `reservations` with its payment, as it is in the end."""

    id: str
    customer: str
    session: int
    seats: tuple[int, ...]
    state: str
    total: int
    created_at: int
    expires_at: int
    settled_at: int | None
    key: str | None
    reply: str
    paid: int | None
    """Minor units of its payment, or None without one."""


@dataclass(frozen=True, slots=True)
class Seat:
    """A row of `seats`, as it is in the end."""

    id: int
    session: int
    position: int
    price: int
    state: str
    version: int
    reservation: str | None


@dataclass(slots=True)
class History:
    """Everything that the checker reads."""

    limits: Limits
    operations: list[Operation] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    reservations: dict[str, Reservation] = field(default_factory=dict)
    seats: dict[int, Seat] = field(default_factory=dict)
    audit: tuple[str, ...] = ()
    """The self-audit's violations at the end, a line each."""
    deadlocks: int = 0
    """How many PostgreSQL has ended."""
    defects: tuple[str, ...] = ()
    """Failures beside the requests: a process that ended without a fault, or a campaign that did not become quiet."""
    on_sale: tuple[int, ...] = ()
    """The sessions whose maps and lists were read at the end."""
    published: frozenset[int] | None = None
    """The numbers of the events that a durable queue of our own has received; None where none was bound."""

    def of(self, *kinds: str) -> Iterator[Operation]:
        """The operations of these kinds."""
        return (operation for operation in self.operations if operation.kind in kinds)


ROWS: Mapping[str, type[Any]] = {
    "limits": Limits,
    "operation": Operation,
    "fault": Fault,
    "event": Event,
    "reservation": Reservation,
    "seat": Seat,
}


END: Mapping[str, Any] = {"audit": (), "deadlocks": 0, "defects": (), "on_sale": ()}
"""The facts of the end, with their values in a history that was cut off."""


def line(row: Any) -> bytes:
    """One row as a line."""
    (name,) = [name for name, type_ in ROWS.items() if type(row) is type_]
    return orjson.dumps({"row": name} | asdict(row)) + b"\n"


def last_line(history: History) -> bytes:
    """The facts of the campaign's end."""
    published = None if history.published is None else sorted(history.published)
    facts = {name: getattr(history, name) for name in END}
    return orjson.dumps({"row": "end", "published": published} | facts) + b"\n"


def write(path: Path, history: History) -> None:
    """Writes the whole history."""
    rows: list[Any] = [history.limits, *history.operations, *history.faults, *history.events]
    rows += [*history.reservations.values(), *history.seats.values()]
    with path.open("wb") as file:
        file.writelines(line(row) for row in rows)
        file.write(last_line(history))


def read(path: Path) -> History:
    """Reads the file of `write`. Raises ValueError where the file has no limits."""
    rows: dict[str, list[dict[str, Any]]] = {}
    with path.open("rb") as file:
        for text in file:
            row = orjson.loads(text)
            rows.setdefault(row.pop("row"), []).append(row)
    if "limits" not in rows:
        raise ValueError(f"{path} is not the history of a campaign: it has no limits")
    (end,) = rows.get("end", [{}])
    published = end.get("published")
    return History(
        limits=Limits(**rows["limits"][0]),
        operations=[_restored(Operation, row, "seats") for row in rows.get("operation", [])],
        faults=[Fault(**row) for row in rows.get("fault", [])],
        events=[_event(row) for row in rows.get("event", [])],
        reservations={row["id"]: _restored(Reservation, row, "seats") for row in rows.get("reservation", [])},
        seats={row["id"]: Seat(**row) for row in rows.get("seat", [])},
        **{name: type(none)(end.get(name, none)) for name, none in END.items()},
        published=None if published is None else frozenset(published),
    )


def _restored(type_: type[T], row: Mapping[str, Any], *tuples: str) -> T:
    return type_(**{name: tuple(value) if name in tuples else value for name, value in row.items()})


def _event(row: Mapping[str, Any]) -> Event:
    changes: Sequence[Mapping[str, Any]] = row["changes"]
    return Event(**{**row, "changes": tuple(Change(**change) for change in changes)})
