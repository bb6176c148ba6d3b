"""Turns at the thread for passwords: fair by address, so that a few addresses can't take it from all others.

There are two lanes, one for accounts without recent failures and one for all other work. While work waits in both, they
take every second turn. In a lane the addresses take turns. The places to wait are bounded: when they are full, the
address with the most work in a lane gives one up for an address that has less.
"""

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from service.errors import Busy, BusyReason

Turn = asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class Asker:
    """A request for a turn, from a client's address. `is_clean`: the account has no recent failures."""

    address: str
    is_clean: bool = False


@dataclass(slots=True)
class Lane:
    """Work that waits, by address. The first address has the next turn."""

    waiting: OrderedDict[str, deque[Turn]] = field(default_factory=OrderedDict)
    count: int = 0

    def add(self, address: str, turn: Turn) -> None:
        """Adds work behind the other work of its address."""
        self.waiting.setdefault(address, deque()).append(turn)
        self.count += 1

    def next(self) -> Turn:
        """The oldest work of the first address, which goes to the end."""
        address = next(iter(self.waiting))
        turn = self.waiting[address].popleft()
        self.waiting.move_to_end(address)
        self._took_one(address)
        return turn

    def longest(self) -> str:
        """The address with the most work, of several the one whose turn is last."""
        return max(reversed(self.waiting), key=self.of)

    def of(self, address: str) -> int:
        """How much work of the address waits."""
        return len(self.waiting.get(address, ()))

    def give_up(self) -> Turn:
        """The newest work of the address with the most."""
        address = self.longest()
        turn = self.waiting[address].pop()
        self._took_one(address)
        return turn

    def remove(self, address: str, turn: Turn) -> None:
        """Work whose caller has gone, if it is still here."""
        if turn in self.waiting.get(address, ()):
            self.waiting[address].remove(turn)
            self._took_one(address)

    def _took_one(self, address: str) -> None:
        self.count -= 1
        if not self.waiting[address]:
            del self.waiting[address]


class FairTurns:
    """One work at a time. At most `places_max` run or wait, and either lane may have half of the places to wait."""

    def __init__(self, places_max: int) -> None:
        self._waiting_max = places_max - 1
        self._clean, self._other = Lane(), Lane()
        self._was_clean = False
        self._is_taken = False

    async def take(self, asker: Asker) -> None:
        """Returns when it is the asker's turn, which ends with `give_back`. Raises Busy."""
        if not self._is_taken:
            self._is_taken = True
            return
        lane = self._clean if asker.is_clean else self._other
        self._make_room(lane, asker.address)
        turn: Turn = asyncio.get_running_loop().create_future()
        lane.add(asker.address, turn)
        try:
            await turn
        except asyncio.CancelledError:
            lane.remove(asker.address, turn)
            if _has_come(turn):
                self.give_back()
            raise

    def give_back(self) -> None:
        """Ends the turn. The next one begins."""
        while lane := self._next_lane():
            self._was_clean = lane is self._clean
            turn = lane.next()
            # Unless its caller is being cancelled.
            if not turn.done():
                turn.set_result(None)
                return
        self._is_taken = False

    def _next_lane(self) -> Lane | None:
        lanes = (self._other, self._clean) if self._was_clean else (self._clean, self._other)
        return next((lane for lane in lanes if lane.count), None)

    def _make_room(self, lane: Lane, address: str) -> None:
        """Raises Busy where all places are taken by work that has as much right to them."""
        if self._clean.count + self._other.count < self._waiting_max:
            return
        other = self._other if lane is self._clean else self._clean
        if other.count and lane.count < self._waiting_max // 2:
            _refuse_one(other)
        elif lane.count and lane.of(lane.longest()) > lane.of(address) + 1:
            _refuse_one(lane)
        else:
            raise Busy(BusyReason.HASH_QUEUE)


def _has_come(turn: Turn) -> bool:
    """Whether the turn began just before its caller was cancelled."""
    return turn.done() and not turn.cancelled() and turn.exception() is None


def _refuse_one(lane: Lane) -> None:
    turn = lane.give_up()
    if not turn.done():
        turn.set_exception(Busy(BusyReason.HASH_QUEUE))
