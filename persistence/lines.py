"""Rows as lines of text: the live state keeps them so, and Postgres takes them apart.

Nobody on the way builds a value of each, which would take a driver five times as long. Separator and null are control
characters, which no value has that came through the server.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import get_type_hints

from persistence.rows import PresenceRow

SEPARATOR, NULL = "\x1f", "\x1e"
REPLACEMENT = "\ufffd"
_WIDTH = len(PresenceRow._fields)
_REPLACED = str.maketrans(dict.fromkeys((SEPARATOR, NULL), REPLACEMENT))


def line_of(row: PresenceRow) -> str:
    """The row as a line: its values in the order of PresenceRow."""
    return SEPARATOR.join(NULL if value is None else str(value).translate(_REPLACED) for value in row)


def row_of(line: str) -> PresenceRow:
    """The row of a line. What can't be read as what it should be is None."""
    values = zip(line.split(SEPARATOR), _READERS, strict=True)
    return PresenceRow(*(None if value == NULL else read(value) for value, read in values))  # type: ignore[arg-type]


def session_id_of(line: str) -> str:
    """Whose row it is."""
    return line[: line.index(SEPARATOR)]


def read_line(written: bytes) -> str:
    """A line as the live state has it.

    One with too many values, since somebody wrote a separator into a record by hand, becomes one that Postgres refuses
    alone.
    """
    line = str(written, "utf-8", "replace")
    if line.count(SEPARATOR) == _WIDTH - 1:
        return line
    session_id = line.partition(SEPARATOR)[0]
    return SEPARATOR.join([session_id, *[NULL] * (_WIDTH - 1)])


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return None


def _truth(text: str) -> bool:
    return text in ("1", "True")


def _reader(hint: object) -> Callable[[str], object]:
    if hint is bool:
        return _truth
    return str if hint in (str, str | None) else _number


_READERS = [_reader(hint) for hint in get_type_hints(PresenceRow).values()]
