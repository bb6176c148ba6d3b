"""Requests that must go together because they want the same rows."""

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

M = TypeVar("M")


def connected_by(members: Iterable[M], rows_of: Callable[[M], Iterable[Hashable]]) -> list[list[M]]:
    """The members in lists: two that have a row in common are in the same one, also by way of others."""
    lists: list[tuple[set[Hashable], list[M]]] = []
    for member in members:
        rows, joined = set(rows_of(member)), [member]
        apart = []
        for known, others in lists:
            if known.isdisjoint(rows):
                apart.append((known, others))
            else:
                rows |= known
                joined = others + joined
        lists = [*apart, (rows, joined)]
    return [joined for _, joined in lists]
