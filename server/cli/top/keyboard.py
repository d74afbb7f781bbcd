"""Single keys from the terminal, without waiting for Enter."""

from __future__ import annotations

import select
import sys
import termios
import tty
from types import TracebackType
from typing import Self


class Keyboard:
    """Within its context keys come one by one and are not shown; where there is no terminal none come."""

    def __init__(self) -> None:
        self._fd = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._before = [] if self._fd is None else termios.tcgetattr(self._fd)

    def __enter__(self) -> Self:
        if self._fd is not None:
            tty.setcbreak(self._fd)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd is not None:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def key(self, within_s: float) -> str:
        """The next key; empty if none was pressed in time."""
        fds = [] if self._fd is None else [self._fd]
        ready, _, _ = select.select(fds, [], [], within_s)
        return sys.stdin.read(1) if ready else ""
