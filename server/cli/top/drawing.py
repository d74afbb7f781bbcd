"""Draws the view of a pool with Rich, as wide and high as the terminal is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from server.cli.top.view import Message, View

HEAD_LINES = 5
FEWEST_ROWS = 3
LEAST_NAME = 8
LINES_OF_A_TABLE = 3  # its title, its head, and a free one
SHARE_OF_EVENTS = 3
NOTHING = "-"
HELP = "q quits"
# Words of the events that mean that somebody is gone, or came in.
_STYLES = {
    "granted": "green",
    "released": "yellow",
    "completed": "cyan",
    "kicked": "red",
    "abandoned": "red",
    "offer_missed": "yellow",
    "recovery_started": "bold red",
}


def draw(view: View, *, now: float, height: int) -> RenderableType:
    """The whole picture, at most `height` lines high; `now` is Unix seconds."""
    rows = max(FEWEST_ROWS, height - HEAD_LINES - 2 * LINES_OF_A_TABLE)
    of_events = max(FEWEST_ROWS, rows // SHARE_OF_EVENTS)
    sides = Table.grid(expand=True, padding=(0, 2))
    sides.add_column(ratio=1)
    sides.add_column(ratio=1)
    most = max(FEWEST_ROWS, rows - of_events)
    sides.add_row(_interviews(view, now, most), _line(view, now, most))
    return Group(_head(view), Text(), sides, Text(), _events(view, of_events))


def _head(view: View) -> RenderableType:
    capacity = view.capacity
    title = Text.assemble((f"presence  {view.pool}", "bold"), f"   {HELP}", no_wrap=True, overflow="ellipsis")
    if view.trouble:
        title.append(f"   {view.trouble}", style="bold red")
    if capacity is None:
        return Group(title, Text("…"))
    active, limit = int(capacity["active"]), int(capacity["limit"])
    full = active + int(capacity["offered"]) >= limit
    bar = ProgressBar(
        total=max(limit, 1), completed=min(active, limit), width=40, complete_style="red" if full else "green"
    )
    gauge = Table.grid(padding=(0, 1))
    gauge.add_row(Text(f"{active} of {limit} in interview", style="bold"), bar, Text(_mode(capacity)))
    return Group(title, gauge, Text(_counts(capacity), no_wrap=True, overflow="ellipsis"))


def _mode(capacity: Message) -> str:
    return "recovering: nobody enters yet" if capacity["recovering"] else str(capacity["mode"])


def _counts(capacity: Message) -> str:
    eta = capacity.get("eta_s")
    wait = "" if eta is None else f"   a newcomer waits {length(float(eta))}"
    return (
        f"{capacity['offered']} offered   {capacity['waiting']} waiting   {capacity['available']} free   "
        f"{capacity['sessions_online']} online   {capacity['sessions_active']} sessions{wait}"
    )


def _interviews(view: View, now: float, most: int) -> RenderableType:
    sessions = _sessions(view, "interviews")
    rows = (
        (
            each["user_id"],
            length(now - seconds(each["since"])),
            each["session_id"],
        )
        for each in sessions
    )
    return _table(f"In interview ({len(sessions)})", ("user", "for", "session"), rows, most)


def _line(view: View, now: float, most: int) -> RenderableType:
    sessions = _sessions(view, "sessions")
    total = 0 if view.line is None else int(view.line["waiting"]) + int(view.line["offered"])
    rows = (
        (
            str(each["position"]),
            each["user_id"],
            NOTHING if each["since"] is None else length(now - seconds(each["since"])),
            "offered" if each["state"] == "offered" else ("" if each["ready"] else "away"),
            NOTHING if each["eta_s"] is None else length(float(each["eta_s"])),
        )
        for each in sessions
    )
    return _table(f"In line ({total})", ("", "user", "waits", "", "to go"), rows, most)


def _events(view: View, most: int) -> RenderableType:
    table = _empty_table("What happens", ("", "", "", ""))
    table.expand = not view.events  # else the title is as narrow as nothing
    for event in list(view.events)[:most]:
        kind = str(event["type"])
        cells = (
            event["at"][11:19],
            kind,
            event.get("user_id"),
            event.get("cause") or event.get("session_id"),
        )
        table.add_row(
            *(
                Text(str(cell or ""), style=_STYLES.get(kind, "") if at == 1 else "")
                for at, cell in enumerate(cells)
            )
        )
    return table


def _sessions(view: View, name: str) -> Sequence[Message]:
    return () if view.line is None else list(view.line[name])


def _table(title: str, columns: Iterable[str], rows: Iterable[Sequence[object]], most: int) -> Table:
    table = _empty_table(title, columns)
    for number, row in enumerate(rows):
        if number == most:
            table.add_row(Text("…"))
            break
        table.add_row(*(Text(str(cell)) for cell in row))
    return table


def _empty_table(title: str, columns: Iterable[str]) -> Table:
    names = list(columns)
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        title=title,
        title_justify="left",
        title_style="bold",
        show_header=any(names),
    )
    for column in names:
        # An id may be cut off, a name should not be.
        least = LEAST_NAME if column == "user" else None
        table.add_column(column, no_wrap=True, overflow="ellipsis", header_style="dim", min_width=least)
    return table


def length(duration_s: float) -> str:
    """Minutes and seconds, or hours and minutes: `21:07`, `3 h 05`."""
    minutes, rest = divmod(max(0, round(duration_s)), 60)
    hours, over = divmod(minutes, 60)
    return f"{hours} h {over:02}" if hours else f"{minutes}:{rest:02}"


def seconds(at: str) -> float:
    """Unix seconds of an ISO 8601 time."""
    return datetime.fromisoformat(at).timestamp()
