"""The tutorial with the generated Python client, refusals included: `python flow.py URL`."""

import sys
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import TypeVar

from rowlock_client import AuthenticatedClient, Client
from rowlock_client.api.accounts import sign_up
from rowlock_client.api.customer import hold_seat, hold_seats, list_history, pay, release, seat_map
from rowlock_client.api.manager import create_session
from rowlock_client.models import (
    CreatedSession,
    CreateSession,
    CreateSessionCurrency,
    ForbiddenProblem,
    HistoryPage,
    Hold,
    InvalidRequestProblem,
    NotFoundProblem,
    ReservationPaidProblem,
    ReservationReply,
    Role,
    SeatMapReply,
    SeatsTakenProblem,
    SettledReply,
    SignedIn,
    SignUp,
    State,
    UnauthenticatedProblem,
)

T = TypeVar("T")


def expect(kind: type[T], answer: object) -> T:
    """The answer, if it is of this type."""
    if not isinstance(answer, kind):
        sys.exit(f"{kind.__name__} expected, not {answer}")
    return answer


def signed_up(url: str, role: Role) -> AuthenticatedClient:
    """A client with the token of a new account."""
    body = SignUp(f"{token_hex(8)}@example.com", "correct horse battery", "Ada", role)
    account = expect(SignedIn, sign_up.sync(client=Client(url), body=body))
    return AuthenticatedClient(url, account.token)


def on_sale(manager: AuthenticatedClient) -> CreatedSession:
    """A new session."""
    body = CreateSession(
        movie="Metropolis",
        room=f"Room {token_hex(4)}",
        showtime=datetime.now(UTC) + timedelta(days=30),
        duration=153,
        price=1250,
        currency=CreateSessionCurrency.EUR,
        placements=[f"A{number}" for number in range(1, 17)],
    )
    return expect(CreatedSession, create_session.sync(client=manager, body=body))


def main(url: str) -> None:
    """Sells a seat and releases another one; each refusal is an object of its own type."""
    manager, customer, other = (signed_up(url, role) for role in (Role.MANAGER, Role.CUSTOMER, Role.CUSTOMER))
    session = on_sale(manager)
    one, two, *_ = (seat.seat_id for seat in session.seats)
    held = expect(ReservationReply, hold_seat.sync(one, client=customer, idempotency_key="one"))
    again = hold_seat.sync_detailed(one, client=customer, idempotency_key="one")
    assert (again.parsed, again.headers["Idempotency-Replayed"]) == (held, "true")
    taken = expect(SeatsTakenProblem, hold_seats.sync(client=other, body=Hold([one, two])))
    assert (taken.seat_ids, taken.status) == ([one], 409)
    expect(NotFoundProblem, pay.sync(held.reservation_id, client=other))
    paid = expect(SettledReply, pay.sync(held.reservation_id, client=customer))
    assert (paid.state, paid.total) == (State.CONFIRMED, 1250)
    expect(ReservationPaidProblem, release.sync(held.reservation_id, client=customer))
    second = expect(ReservationReply, hold_seat.sync(two, client=customer))
    released = expect(SettledReply, release.sync(second.reservation_id, client=customer))
    assert released.state is State.CANCELLED
    refuse(url, manager, customer)
    history = expect(HistoryPage, list_history.sync(client=customer))
    assert [line.reservation_id for line in history.reservations] == [held.reservation_id]
    shown = expect(SeatMapReply, seat_map.sync(session.session_id, client=Client(url)))
    assert len(shown.seats) == len(session.seats)


def refuse(url: str, manager: AuthenticatedClient, customer: AuthenticatedClient) -> None:
    """Requests that are wrong."""
    forbidden = expect(ForbiddenProblem, hold_seat.sync(1, client=manager))
    assert forbidden.role == "CUSTOMER"
    expect(UnauthenticatedProblem, hold_seat.sync(1, client=AuthenticatedClient(url, "none")))
    invalid = expect(InvalidRequestProblem, hold_seats.sync(client=customer, body=Hold([])))
    assert [fault.field for fault in invalid.errors] == ["seatIds"]


if __name__ == "__main__":
    main(sys.argv[1])
