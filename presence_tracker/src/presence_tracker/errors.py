"""What can go wrong. Each message is one sentence that says what to do."""


class PresenceError(Exception):
    """Base of all errors of this package."""


class PresenceConfigError(PresenceError):
    """The configuration is missing or wrong: no address, no key, or a key that the server refuses."""


class PresenceUnavailableError(PresenceError):
    """The presence server does not answer, or not in time."""


class NoSessionError(PresenceError):
    """A call that is about a session came before `mark_session_started`."""


class PresenceRequestError(PresenceError):
    """The server refused a call; the message is its own. `status`: of HTTP; `code`: the server's name for it."""

    def __init__(self, message: str, status: int, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class SessionGoneError(PresenceRequestError):
    """The server does not know the session (404), or it has ended (410)."""

    @property
    def has_ended(self) -> bool:
        """Whether the server remembers that the session ended, so that it can say how."""
        return self.code == "session_ended"


# The name that the contract gives it.
PresenceUnavailable = PresenceUnavailableError
