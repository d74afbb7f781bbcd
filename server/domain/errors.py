"""What can go wrong, as exceptions; each is mapped once to HTTP, to WebSocket and to the CLI."""

from __future__ import annotations


class PresenceError(Exception):
    """Base of all. `code` is stable and names the error to programs; the text is for people."""

    code = "error"


class UnknownSessionError(PresenceError):
    """No session of that id is known."""

    code = "unknown_session"


class SessionEndedError(PresenceError):
    """The session has ended; `end_reason` says how."""

    code = "session_ended"

    def __init__(self, end_reason: str) -> None:
        super().__init__(f"The session has ended ({end_reason}). Open a new one to go on.")
        self.end_reason = end_reason


class StaleFenceError(PresenceError):
    """The fence names an older permit than the session's newest; nothing was changed."""

    code = "stale_fence"


class StaleConnectionError(PresenceError):
    """The sign came from a connection that is not the session's current one; nothing was changed."""

    code = "stale_connection"


class SupersededAttemptError(PresenceError):
    """A newer attempt of the same tab has connected already."""

    code = "superseded"


class SessionIdTakenError(PresenceError):
    """The session id that was asked for belongs to another user's running session or to another pool."""

    code = "session_id_taken"


class BadTokenError(PresenceError):
    """The token is malformed, wrongly signed, expired, or no longer good for its session."""

    code = "bad_token"


class RedisAwayError(PresenceError):
    """Redis did not answer. Nothing can be decided until it is back; it heals by itself."""

    code = "redis_away"


class RedisFullError(PresenceError):
    """Redis is out of memory: nothing can be added, everything that frees still works."""

    code = "redis_full"


class TooManyReadersError(PresenceError):
    """As many read events from this node as may, or it is stopping. Try again soon."""

    code = "too_many_readers"


class UnknownPoolError(PresenceError):
    """No pool of that name has been created."""

    code = "unknown_pool"


class RedisRefusedError(PresenceError):
    """Redis refused a command for a reason that does not pass by itself, e.g. a key of another type."""

    code = "redis_refused"


class WrongRedisError(RedisRefusedError):
    """The URL speaks of a cluster and leads to a single server, or the other way round."""
