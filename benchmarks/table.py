"""What a benchmark gives: rows, shown as one table or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(slots=True, frozen=True)
class Goal:
    """The bound that DESIGN 8 sets, in the row's unit."""

    bound: float
    is_upper: bool = True

    def __str__(self) -> str:
        return f"{'≤' if self.is_upper else '≥'} {shown(self.bound)}"

    def is_met(self, measured: float) -> bool:
        """Whether the measured number keeps the bound."""
        return measured <= self.bound if self.is_upper else measured >= self.bound


@dataclass(slots=True, frozen=True)
class Row:
    """One number in `unit`; `floor` is what a bare server took for the same load, in the same unit."""

    name: str
    measured: float
    unit: str
    goal: Goal | None = None
    floor: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the floor it is."""
        return self.measured / self.floor if self.floor else None

    def as_json(self) -> dict[str, Any]:
        """The row for programs."""
        return {
            "name": self.name,
            "measured": self.measured,
            "unit": self.unit,
            "goal": None if self.goal is None else str(self.goal),
            "met": None if self.goal is None else self.goal.is_met(self.measured),
            "floor": self.floor,
            "ratio": self.ratio,
        }


def at_most(bound: float) -> Goal:
    """The number may not be higher."""
    return Goal(bound)


def at_least(bound: float) -> Goal:
    """The number may not be lower."""
    return Goal(bound, is_upper=False)


def shown(number: float | None) -> str:
    """A number with three figures or so, as people read it."""
    if number is None:
        return ""
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"


def print_table(rows: Sequence[Row], title: str) -> None:
    """Print all rows as one table."""
    table = Table(title=title, title_justify="left")
    for heading in ("what", "measured", "unit", "goal", "", "floor", "ratio"):
        table.add_column(heading, justify="right" if heading in ("measured", "floor", "ratio") else "left")
    for row in rows:
        mark = "" if row.goal is None else ("✓" if row.goal.is_met(row.measured) else "✗")
        goal = "" if row.goal is None else str(row.goal)
        table.add_row(row.name, shown(row.measured), row.unit, goal, mark, shown(row.floor), shown(row.ratio))
    Console(width=120).print(table)
