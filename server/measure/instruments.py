"""Counters, gauges and histograms that cost a heartbeat nothing: plain numbers, which are read when somebody asks.

The names of their labels stand here, and their values come from our code, never from outside. Should that be wrong
somewhere, each instrument still has a bound.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Literal, TypeVar

Labels = tuple[str, ...]
# How the workers of one node are taken together: see `prometheus_client`'s multiprocess mode.
Together = Literal["livesum", "livemax", "livemin"]

# The label that stands for all that has no series of its own.
OTHER = "other"
MOST_SERIES = 256

MILLISECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


class Cell:
    """One number that only rises."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, amount: float = 1) -> None:
        """Count."""
        self.value += amount


class Buckets:
    """How many observations lie up to each bound and not up to the one before; the last count has no bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Take one observation, in the unit of the bounds."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_since(self, began: float) -> None:
        """Take the seconds that have passed since `began`, by `time.perf_counter`."""
        self.observe(time.perf_counter() - began)


Each = TypeVar("Each")


class Instrument(Generic[Each]):
    """One metric: a name, what it means, and a cell for each combination of label values.

    `known`: combinations that are shown from the start. Beyond `most` all new ones share the cell of OTHER.
    """

    def __init__(
        self,
        name: str,
        meaning: str,
        make: Callable[[], Each],
        *,
        labels: Labels,
        known: Iterable[Labels],
        most: int,
    ) -> None:
        self.name = name
        self.meaning = meaning
        self.labels = labels
        self.cells: dict[Labels, Each] = {}
        self._most = most
        self._make = make
        for values in known if labels else [()]:
            self.at(*values)

    def at(self, *values: str) -> Each:
        """The cell of these label values."""
        cell = self.cells.get(values)
        return cell if cell is not None else self._new(values)

    def _new(self, values: Labels) -> Each:
        if len(self.cells) >= self._most - 1:
            values = (OTHER,) * len(self.labels)
        if values not in self.cells:
            self.cells[values] = self._make()
        return self.cells[values]


class Counter(Instrument[Cell]):
    """Counts what happens; the name ends in `_total`."""

    def __init__(
        self,
        name: str,
        meaning: str,
        labels: Labels = (),
        *,
        known: Iterable[Labels] = (),
        most: int = MOST_SERIES,
    ) -> None:
        super().__init__(name, meaning, Cell, labels=labels, known=known, most=most)


class Histogram(Instrument[Buckets]):
    """How long or how large things are."""

    def __init__(
        self,
        name: str,
        meaning: str,
        bounds: Sequence[float],
        labels: Labels = (),
        *,
        known: Iterable[Labels] = (),
        most: int = MOST_SERIES,
    ) -> None:
        self.bounds = bounds
        super().__init__(name, meaning, lambda: Buckets(bounds), labels=labels, known=known, most=most)


class Gauge:
    """A number that is asked for when it is shown. `together`: how those of several workers make one."""

    def __init__(self, name: str, meaning: str, read: Callable[[], float], together: Together) -> None:
        self.name = name
        self.meaning = meaning
        self.read = read
        self.together: Together = together
