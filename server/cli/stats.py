"""`presence stats`: what the history says about the last days, as tables for people or JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from server.cli.remote import PIPE_WIDTH, Remote, Reply, cell, print_json

BUSIEST = 5
ALL = "all"
SECONDS = "_s"


@dataclass(frozen=True, slots=True)
class Part:
    """One question, and the columns of its table: what each is called and the field that it shows."""

    name: str
    title: str
    rows: str
    columns: Mapping[str, str]

    @property
    def path(self) -> str:
        """Where it is asked."""
        return f"/v1/analytics/{self.name}"


PARTS = (
    Part(
        "languages",
        "Who came",
        "languages",
        {
            "language": "language_code",
            "sessions": "sessions",
            "interviews": "interviews",
            "completed": "completed",
        },
    ),
    Part(
        "durations",
        "How long interviews took",
        "durations",
        {
            "language": "language_code",
            "interviews": "interviews",
            "median": "interview_median_s",
            "p90": "interview_p90_s",
            "longest": "interview_longest_s",
        },
    ),
    Part(
        "waits",
        "How long people waited for theirs",
        "waits",
        {
            "language": "language_code",
            "admitted": "admitted",
            "had to wait": "waited",
            "median": "median_s",
            "p90": "p90_s",
            "longest": "longest_s",
            "gave up": "gave_up",
        },
    ),
    Part("endings", "How sessions ended", "endings", {"reason": "end_reason", "sessions": "sessions"}),
    Part(
        "peak-hours",
        "Busiest hours (UTC), by who came",
        "hours",
        {"hour": "hour", "sessions": "sessions", "interviews": "interviews"},
    ),
    Part(
        "concurrency",
        "Busiest hours (UTC), by interviews at the same time",
        "hours",
        {"hour": "hour", "most": "most", "average": "average"},
    ),
)
# Of the tables by hour only the first few rows are shown, the busiest first.
_BUSIEST_BY = {"peak-hours": "sessions", "concurrency": "average"}


def show_stats(pool: str, days: int, *, as_json: bool) -> None:
    """Ask the server and print its answers."""
    answers = {
        part.name: Remote.from_environment(pool).call("GET", part.path, query={"days": str(days)})
        for part in PARTS
    }
    if as_json:
        return print_json(answers)
    typer.echo(f"Pool {pool}, the last {days} days.")
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    for part in PARTS:
        typer.echo(f"\n{part.title}")
        console.print(_table(part, answers[part.name]))
    return None


def _table(part: Part, answer: Reply) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in part.columns:
        table.add_column(title)
    for row in _chosen(part, answer[part.rows]):
        table.add_row(*(cell(_text(field, row)) for field in part.columns.values()))
    return table


def _chosen(part: Part, rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    by = _BUSIEST_BY.get(part.name)
    return rows if by is None else sorted(rows, key=lambda row: -float(row[by]))[:BUSIEST]


def _text(field: str, row: Mapping[str, Any]) -> str:
    value = row[field]
    if field == "language_code" and row.get("total"):
        return ALL
    if value is None:
        return "-"
    if field == "hour":
        return str(value)[:16].replace("T", " ")
    if field.endswith(SECONDS):
        return _duration(float(value))
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    """Minutes and seconds, e.g. `21:07`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
