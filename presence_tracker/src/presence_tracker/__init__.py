"""The interview-presence client for Streamlit apps, and for any other Python program that asks over HTTP."""

from presence_tracker.errors import (
    PresenceConfigError,
    PresenceError,
    PresenceRequestError,
    PresenceUnavailable,
    PresenceUnavailableError,
)
from presence_tracker.models import Capacity, Interview

__all__ = [
    "Capacity",
    "Interview",
    "PresenceConfigError",
    "PresenceError",
    "PresenceRequestError",
    "PresenceUnavailable",
    "PresenceUnavailableError",
]
