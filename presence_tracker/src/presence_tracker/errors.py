"""What can go wrong. Each message is one sentence that says what to do."""


class PresenceError(Exception):
    """Base of all errors of this package."""


class PresenceConfigError(PresenceError):
    """The configuration is missing or wrong: no address, no key, or a key that the server refuses."""


class PresenceUnavailableError(PresenceError):
    """The presence server does not answer, or not in time."""


class PresenceRequestError(PresenceError):
    """The server refused a call; the message is its own. `status` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


# The name that the contract gives it.
PresenceUnavailable = PresenceUnavailableError
