"""Log lines: structured, one format for our own and for libraries', never with a secret in them."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

HIDDEN = "[hidden]"
SECRET_FIELDS = frozenset({"token", "secret", "api_key", "key", "authorization", "password", "cookie"})
QUIET_LIBRARIES = ("asyncio", "httpx", "httpcore")
# Of one kind of line, errors apart: a reload of ten thousand pages, or somebody who guesses keys, fills no disk.
MOST_OF_A_KIND = 1000
WITHIN_S = 10.0


def configure(level: str, style: Literal["console", "json"]) -> None:
    """Send all logging to stderr in the one format. May be called again."""
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        hide_secrets,
    ]
    structlog.configure(
        processors=[Sampler(), *before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=before, processors=_rendering(style))
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    _adopt_libraries()


def hide_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Blank the value of every field that is named like a secret."""
    for name in SECRET_FIELDS & event.keys():
        event[name] = HIDDEN
    return event


@dataclass(slots=True)
class _Window:
    """The lines of one kind since `began`."""

    began: float
    lines: int = 0


class Sampler:
    """Lets pass `most` lines of a kind within `within_s`; the first one after that says how many were left out.

    Errors always pass. `clock` is seconds.
    """

    def __init__(
        self,
        most: int = MOST_OF_A_KIND,
        within_s: float = WITHIN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._within_s = within_s
        self._clock = clock
        self._windows: dict[str, _Window] = {}

    def __call__(self, _logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """Pass the line on, or drop it."""
        if method not in ("error", "critical", "exception"):
            self._count(str(event.get("event")), event)
        return event

    def _count(self, kind: str, event: MutableMapping[str, object]) -> None:
        now = self._clock()
        window = self._windows.setdefault(kind, _Window(now))
        if now >= window.began + self._within_s:
            if window.lines > self._most:
                event["left_out"] = window.lines - self._most
            window.began, window.lines = now, 0
        window.lines += 1
        if window.lines > self._most:
            raise structlog.DropEvent


def _rendering(style: Literal["console", "json"]) -> list[Processor]:
    meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if style == "json":
        return [meta, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    # Not structlog's own choice, which shows the local variables of each frame: tokens and keys among them.
    plain = structlog.dev.plain_traceback
    return [meta, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]


def _adopt_libraries() -> None:
    """Uvicorn brings handlers of its own; its lines must look like all others. Requests are not logged one by one."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    for name in ("uvicorn.access", *QUIET_LIBRARIES):
        logging.getLogger(name).setLevel(logging.WARNING)
