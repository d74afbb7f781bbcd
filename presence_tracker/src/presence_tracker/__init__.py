"""The interview-presence client for Streamlit apps, and for any other Python program that asks over HTTP."""

from presence_tracker.api import PresenceApi
from presence_tracker.errors import (
    NoSessionError,
    PresenceConfigError,
    PresenceError,
    PresenceRequestError,
    PresenceUnavailable,
    PresenceUnavailableError,
    SessionGoneError,
)
from presence_tracker.identity import Identity
from presence_tracker.models import Capacity, Interview, OpenedSession, Standing
from presence_tracker.start import get_presence_tracker
from presence_tracker.tracker import PresenceTracker

__all__ = [
    "Capacity",
    "Identity",
    "Interview",
    "NoSessionError",
    "OpenedSession",
    "PresenceApi",
    "PresenceConfigError",
    "PresenceError",
    "PresenceRequestError",
    "PresenceTracker",
    "PresenceUnavailable",
    "PresenceUnavailableError",
    "SessionGoneError",
    "Standing",
    "get_presence_tracker",
]
