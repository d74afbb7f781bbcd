"""Why a connection is closed by us: the close code, and the error message that goes before it."""

from __future__ import annotations

import random

import structlog

from server.domain import errors
from server.domain.messages import Close, ErrorMessage, encode
from server.measure.instruments import Counter
from server.node.protocol import Transport

log = structlog.get_logger(__name__)

RETRY_MS = (1000, 5000)

# What may go wrong with a hello, or later on when a session is registered anew.
_CLOSES: dict[type[errors.PresenceError], Close] = {
    errors.BadTokenError: Close.BAD_TOKEN,
    errors.UnknownSessionError: Close.BAD_TOKEN,
    errors.UnknownPoolError: Close.BAD_TOKEN,
    errors.SupersededAttemptError: Close.SUPERSEDED,
    errors.RedisAwayError: Close.REDIS_AWAY,
    errors.RedisFullError: Close.REDIS_AWAY,
    errors.RedisRefusedError: Close.REDIS_AWAY,
    errors.WrongRedisError: Close.REDIS_AWAY,
}


class RefusedError(Exception):
    """The connection is to be closed. `code` is for programs, the text for people."""

    def __init__(self, close: Close, code: str, message: str) -> None:
        super().__init__(message)
        self.close = close
        self.code = code


def refusal(error: errors.PresenceError) -> RefusedError:
    """How a store's or token's error ends a connection."""
    return RefusedError(_CLOSES[type(error)], error.code, str(error))


def retry_in_ms() -> int:
    """When to try again; different for each, so that they don't all come back at once."""
    return random.randint(*RETRY_MS)  # noqa: S311 - spreads load


def refuse(transport: Transport, refused: RefusedError, count: Counter, **about: object) -> None:
    """Say why, close, count it, and leave one line in the log; `about` names whom it concerned."""
    count.at(refused.code).add()
    log.warning("connection_refused", close=refused.close.value, error=refused.code, **about)
    retry = retry_in_ms() if refused.close.comes_back else None
    transport.send_text(encode(ErrorMessage(code=refused.code, message=str(refused), retry_in_ms=retry)))
    transport.close(refused.close, refused.code)
