"""`presence plan`: how many places are needed, as a table, as JSON and as a picture."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from persistence.connect import connect
from persistence.errors import POSTGRES_AWAY
from persistence.plan.demand import Demand, Steady
from persistence.plan.history import Arrivals
from persistence.plan.limits import LimitsError, limits_of
from persistence.plan.picture import svg, worth_showing
from persistence.plan.planning import (
    AtLimit,
    Plan,
    Question,
    Target,
    plan_from_assumptions,
    plan_from_history,
)
from persistence.plan.words import answer, duration, load, percent, seconds_of
from server.cli.errors import MISUSED, CommandError
from server.cli.remote import PIPE_WIDTH, Remote, print_json
from server.settings import Settings, SettingsError


@dataclass(frozen=True, slots=True)
class Asked:
    """The command's options, as given."""

    pool: str
    days: int
    limits: str
    target_wait: str
    percent: float
    arrivals_per_hour: float | None
    mean_minutes: float | None


def plan_places(asked: Asked, *, picture: Path | None, as_json: bool) -> None:
    """Make the plan and show it. Too few data are a CommandError, after what there is to be shown."""
    plan = _made(asked, _question(asked))
    if picture is not None and plan.limits:
        _draw(plan, picture)
    if as_json:
        print_json(msgspec.to_builtins(plan))
    elif plan.limits:
        show_plan(plan, Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False))
    if not plan.limits:
        raise CommandError(*plan.warnings)


def _question(asked: Asked) -> Question:
    try:
        limits = limits_of(asked.limits)
    except LimitsError as error:
        raise CommandError(f"--limits: {error}", exit_code=MISUSED) from None
    try:
        target = Target(seconds_of(asked.target_wait), asked.percent)
    except ValueError:
        raise CommandError(
            f"--target-wait must look like 60s, 5m or 1h, not {asked.target_wait!r}", exit_code=MISUSED
        ) from None
    return Question(limits, target, asked.pool)


def _made(asked: Asked, question: Question) -> Plan:
    """From what is assumed, from the database, or by the server: in this order."""
    if asked.arrivals_per_hour is not None or asked.mean_minutes is not None:
        return plan_from_assumptions(_assumed(asked), Question(question.limits, question.target))
    if "DATABASE_URL" in os.environ and "PRESENCE_URL" not in os.environ:
        return plan_from_history(_read(asked), question)
    return _asked_for(asked, question)


def _assumed(asked: Asked) -> Steady:
    if not asked.arrivals_per_hour or not asked.mean_minutes:
        raise CommandError(
            "--arrivals-per-hour and --mean-minutes belong together, and both are more than 0",
            exit_code=MISUSED,
        )
    return Steady(asked.arrivals_per_hour, asked.mean_minutes * 60)


def _read(asked: Asked) -> Demand:
    try:
        settings = Settings.read()
        return asyncio.run(_demand(settings, asked))
    except SettingsError as error:
        raise CommandError(*error.problems, exit_code=MISUSED) from None
    except POSTGRES_AWAY as error:
        reason = str(error).partition("\n")[0] or "no answer in time"
        raise CommandError(f"the history can't be read from DATABASE_URL: {reason}") from None


async def _demand(settings: Settings, asked: Asked) -> Demand:
    if settings.database_url is None:
        raise CommandError("DATABASE_URL is empty", exit_code=MISUSED)
    url = settings.database_url.get_secret_value()
    async with await connect(url, ca=settings.database_ca, max_size=1) as connections:
        return await Arrivals(connections, settings.schema_).demand(asked.pool, asked.days)


def _asked_for(asked: Asked, question: Question) -> Plan:
    query = {
        "days": str(asked.days),
        "limits": asked.limits.strip(),
        "target_wait_s": str(question.target.wait_s),
        "percent": str(question.target.percent),
    }
    reply = Remote.from_environment(asked.pool).call("GET", "/v1/analytics/plan", query=query)
    try:
        return msgspec.convert(reply, Plan)
    except msgspec.ValidationError:
        raise CommandError("the server's plan can't be read: is it of the same version?") from None


def _draw(plan: Plan, picture: Path) -> None:
    try:
        picture.write_text(svg(plan), encoding="utf-8")
    except OSError as error:
        raise CommandError(f"the picture can't be written to {picture}: {error.strerror}") from None


COLUMNS = ("places", "have to wait", "median wait", "95 % wait at most", "within target", "used", "Erlang-C")


def show_plan(plan: Plan, console: Console) -> None:
    """Print the plan for people."""
    if plan.load is not None:
        console.print(load(plan.load))
    console.print()
    console.print(_table(plan))
    console.print()
    console.print(answer(plan), style="bold")
    for sentence in plan.warnings:
        console.print(f"Careful: {sentence}", style="yellow")
    console.print("This assumes:")
    for sentence in plan.assumes:
        console.print(f"- {sentence}")


def _table(plan: Plan) -> Table:
    gave_up = any(each.gave_up for each in plan.limits)
    table = Table(box=None, pad_edge=False)
    for column in [*COLUMNS, "give up"] if gave_up else COLUMNS:
        table.add_column(column, justify="right")
    for each in worth_showing(plan):
        style = "bold" if each.limit == plan.smallest else None
        table.add_row(*_row(each, gave_up=gave_up), style=style)
    return table


def _row(each: AtLimit, *, gave_up: bool) -> list[str]:
    cells = [
        str(each.limit),
        percent(each.chance_of_waiting),
        duration(each.median_wait_s),
        duration(each.p95_wait_s),
        percent(each.within_target),
        percent(each.utilisation),
        percent(each.erlang_c.chance_of_waiting),
    ]
    return [*cells, percent(each.gave_up)] if gave_up else cells
