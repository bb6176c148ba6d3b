"""Demo data, created through the public API: accounts, and sessions of several sizes on sale."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from string import ascii_uppercase

import httpx

PASSWORD = "correct horse battery"  # noqa: S105 - it is public
MANAGER = "manager@example.com"
CUSTOMERS = ("ada@example.com", "grace@example.com", "linus@example.com")
REQUEST_SECONDS_MAX = 60
IN_USE, INVALID = 409, 422


class DemoError(Exception):
    """The API refused the demo data; the message is for people."""


@dataclass(frozen=True, slots=True)
class Show:
    """A session to put on sale, `days` from now; `price` is in minor units."""

    movie: str
    room: str
    days: int
    price: int
    rows: int
    seats_per_row: int

    def placements(self) -> list[str]:
        """A1, A2 ... B1 ...; after Z comes AA."""
        return [f"{_letters(row)}{seat}" for row in range(self.rows) for seat in range(1, self.seats_per_row + 1)]


SHOWS = (
    Show("Metropolis", "Studio", days=1, price=950, rows=2, seats_per_row=8),
    Show("Nosferatu", "Room 1", days=2, price=1250, rows=8, seats_per_row=15),
    Show("The General", "Great Hall", days=3, price=1800, rows=25, seats_per_row=40),
    Show("Sunrise", "Arena", days=7, price=4900, rows=100, seats_per_row=200),
)


def load(api: str) -> int:
    """Creates missing accounts, and sessions if none is on sale. Returns the id of a seat that can be held.

    Raises DemoError, httpx.HTTPError.
    """
    with httpx.Client(base_url=api, timeout=REQUEST_SECONDS_MAX) as client:
        _sign_up(client, MANAGER, "Manager", "MANAGER")
        for email in CUSTOMERS:
            _sign_up(client, email, email.partition("@")[0].title(), "CUSTOMER")
        if not (sessions := _on_sale(client)):
            _create_sessions(client)
            sessions = _on_sale(client)
        seat_map = _checked(client.get(f"/customer/session/{sessions[0]['sessionId']}")).json()
        return next((seat["seatId"] for seat in seat_map["seats"] if seat["state"] == "AVAILABLE"), 1)


def _sign_up(client: httpx.Client, email: str, name: str, role: str) -> None:
    body = {"email": email, "password": PASSWORD, "name": name, "role": role}
    reply = client.post("/sign-up", json=body)
    if role == "MANAGER" and reply.status_code == INVALID:
        raise DemoError("the demo data need a manager account: ROWLOCK_OPEN_MANAGER_SIGN_UP must not be false")
    if reply.status_code != IN_USE:
        _checked(reply)


def _on_sale(client: httpx.Client) -> list[dict[str, int]]:
    sessions: list[dict[str, int]] = _checked(client.get("/customer/list-sessions")).json()["sessions"]
    return sessions


def _create_sessions(client: httpx.Client) -> None:
    signed_in = client.post("/sign-in", json={"email": MANAGER, "password": PASSWORD})
    headers = {"Authorization": f"Bearer {_checked(signed_in).json()['token']}"}
    today = datetime.now(UTC).replace(hour=19, minute=30, second=0, microsecond=0)
    for show in SHOWS:
        body = {
            "movie": show.movie,
            "room": show.room,
            "showtime": (today + timedelta(days=show.days)).isoformat(),
            "duration": 120,
            "price": show.price,
            "currency": "EUR",
            "placements": show.placements(),
        }
        _checked(client.post("/manager/create", json=body, headers=headers))


def _checked(reply: httpx.Response) -> httpx.Response:
    if not reply.is_success:
        raise DemoError(f"demo data: {reply.request.method} {reply.request.url.path} failed: {reply.text}")
    return reply


def _letters(row: int) -> str:
    before, letter = divmod(row, len(ascii_uppercase))
    return (_letters(before - 1) if before else "") + ascii_uppercase[letter]
