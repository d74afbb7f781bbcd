"""Which development server runs on a data folder: it holds a lock on a note there."""

from __future__ import annotations

import fcntl
import json
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(".presence")
NOTE = "running.json"


@dataclass(frozen=True, slots=True)
class Running:
    """A development server that runs on a data folder."""

    pid: int
    url: str


def running_in(folder: Path = FOLDER) -> Running | None:
    """The development server that runs on this folder; None if none does."""
    try:
        with (folder / NOTE).open(encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                told = json.loads(handle.read())
                return Running(told["pid"], told["url"])
    except (OSError, ValueError):
        return None
    return None
