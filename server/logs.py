"""Log lines: structured, one format for our own and for libraries', never with a secret in them."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

HIDDEN = "[hidden]"
SECRET_FIELDS = frozenset({"token", "secret", "api_key", "key", "authorization", "password", "cookie"})
QUIET_LIBRARIES = ("asyncio", "httpx", "httpcore")


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
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
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
