"""The loop of `presence top`: the stream in a thread of its own, the picture four times a second."""

from __future__ import annotations

import random
import sys
import threading
import time
from contextlib import suppress

from rich.console import Console
from rich.live import Live

from server.cli.errors import CommandError
from server.cli.remote import PIPE_WIDTH, Remote
from server.cli.top.drawing import draw
from server.cli.top.keyboard import Keyboard
from server.cli.top.view import View

FRAME_S = 0.25
RETRY_S = (0.5, 2.0)
FIRST_WITHIN_S = 10.0
CONSISTENT_WITHIN_S = 2.5
PIPE_HEIGHT = 60


def watch(pool: str, *, once: bool) -> None:
    """Show the pool until q or Ctrl-C; `once`, or into a pipe: one picture."""
    Remote.from_environment(pool).call(
        "GET", "/v1/capacity"
    )  # what is wrong with address or key ends it here
    view = View(pool)
    changed = threading.Condition()
    threading.Thread(target=_follow, args=(view, changed), daemon=True).start()
    if once or not sys.stdout.isatty():
        _show_once(view, changed)
    else:
        with suppress(KeyboardInterrupt):
            _show(view, changed)


def _follow(view: View, changed: threading.Condition) -> None:
    """Feed the view for ever; after a loss anew, with jitter."""
    while True:
        try:
            with Remote.from_environment(view.pool).events(("capacity", "line")) as messages:
                for kind, message in messages:
                    with changed:
                        view.take(kind, message)
                        changed.notify_all()
            trouble = "the server ended the stream"
        except CommandError as error:
            trouble = str(error)
        with changed:
            view.trouble = f"trying again: {trouble}"
            changed.notify_all()
        time.sleep(random.uniform(*RETRY_S))  # noqa: S311 - jitter, not a secret


def _show(view: View, changed: threading.Condition) -> None:
    console = Console()
    with Keyboard() as keyboard, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            with changed:
                picture = draw(view, now=time.time(), height=console.height)
                live.update(picture, refresh=True)
            if keyboard.key(FRAME_S) == "q":
                return


def _show_once(view: View, changed: threading.Condition) -> None:
    with changed:
        if not changed.wait_for(lambda: view.is_complete, timeout=FIRST_WITHIN_S):
            raise CommandError(f"the server did not say how the pool stands ({view.trouble})")
        changed.wait_for(lambda: view.is_consistent, timeout=CONSISTENT_WITHIN_S)
        console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
        console.print(draw(view, now=time.time(), height=PIPE_HEIGHT))
