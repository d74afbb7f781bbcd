"""What this node saw of each pool in the last 24 hours, every 10 seconds: for charts without, or beside, a history."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from server.domain.pool import PoolState

EVERY_MS = 10_000
KEPT = 24 * 3600 * 1000 // EVERY_MS
# They are deleted in blocks, since each deletion moves all the others.
SPARE = KEPT // 24


@dataclass(slots=True, frozen=True)
class Sample:
    """A pool at one moment (wall-clock ms)."""

    at: int
    online: int
    in_interview: int
    waiting: int
    limit: int


@dataclass(slots=True, eq=False)
class _Columns:
    """28 bytes a sample: 250 KB a pool at most."""

    at: array[int] = field(default_factory=lambda: array("q"))
    online: array[int] = field(default_factory=lambda: array("I"))
    in_interview: array[int] = field(default_factory=lambda: array("I"))
    waiting: array[int] = field(default_factory=lambda: array("I"))
    # What an operator wrote into Redis by hand may be below zero.
    limit: array[int] = field(default_factory=lambda: array("q"))

    def all(self) -> tuple[array[int], ...]:
        return self.at, self.online, self.in_interview, self.waiting, self.limit

    def add(self, *values: int) -> None:
        for column, value in zip(self.all(), values, strict=True):
            column.append(value)
            if len(column) > KEPT + SPARE:
                del column[:SPARE]

    def cut(self, length: int) -> None:
        for column in self.all():
            del column[length:]

    def __getitem__(self, index: int) -> Sample:
        return Sample(*(column[index] for column in self.all()))


class Samples:
    """The samples of all pools, from the ticks that the node makes anyway."""

    def __init__(self) -> None:
        self._pools: dict[str, _Columns] = {}

    def see(self, state: PoolState) -> None:
        """A tick says this of a pool. A clock that was set back makes what it had seen of the future worthless."""
        columns = self._pools.setdefault(state.pool, _Columns())
        if columns.at and state.at < columns.at[-1]:
            columns.cut(bisect_left(columns.at, state.at))
        if not columns.at or state.at // EVERY_MS > columns.at[-1] // EVERY_MS:
            columns.add(state.at, state.online, state.active, state.waiting, state.limit)

    def newest(self, pool: str) -> Sample | None:
        """The last one."""
        columns = self._pools.get(pool)
        return columns[-1] if columns is not None and columns.at else None

    def at(self, pool: str, moments_ms: Iterable[int], within_ms: int) -> Iterator[Sample | None]:
        """For each moment the last sample before it, if it is not older than `within_ms`."""
        columns = self._pools.get(pool, _Columns())
        for moment in moments_ms:
            index = bisect_right(columns.at, moment) - 1
            yield columns[index] if index >= 0 and columns.at[index] > moment - within_ms else None
