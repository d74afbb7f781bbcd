"""Which session this app's visitor has, and where that is remembered from one run of the app to the next."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from presence_tracker.models import Interview

# The server's rules for what it stores.
_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9_.:@-]+")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8})*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ID_MAX, _PAGE_MAX, _LANGUAGE_MAX, _DIGEST = 128, 200, 35, 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What the app knows of its visitor's session; a change makes a new one.

    `session_id` is None while the server could not be asked to open it. `page` and `told_language` are what the server
    was last told, `wanted_page` and `language_code` what it is to be told. `interview` is the last known standing.
    `opened_at` is a monotonic time. `has_ended`: for good. `stays_out`: left, or had their time; asks to come back.
    """

    user_id: str
    language_code: str | None = None
    wanted_page: str | None = None
    metadata: Mapping[str, Any] | None = None
    wanted_id: str | None = None
    session_id: str | None = None
    token: str | None = field(default=None, repr=False)
    client_url: str | None = None
    page: str | None = None
    told_language: str | None = None
    interview: Interview | None = None
    opened_at: float = 0.0
    wants_completion: bool = False
    has_ended: bool = False
    stays_out: bool = False

    @property
    def is_granted(self) -> bool:
        """Whether the server let this session in when it was last asked."""
        return self.interview is not None and self.interview.is_granted

    @property
    def is_in_line(self) -> bool:
        """Whether this session was in the line when the server was last asked."""
        return self.interview is not None and self.interview.is_in_line

    @property
    def is_turned_away(self) -> bool:
        """Whether this session's last claim was denied."""
        return self.interview is not None and self.interview.is_denied


class IdentityStore(Protocol):
    """Remembers one visitor's identity."""

    def load(self) -> Identity | None:
        """The identity, or None before a session is started."""

    def save(self, identity: Identity) -> None:
        """Remember it."""

    def clear(self) -> None:
        """Forget it."""


class MemoryStore:
    """For plain Python: one identity, as long as the store lives."""

    def __init__(self) -> None:
        self._identity: Identity | None = None

    def load(self) -> Identity | None:
        """The identity, or None before a session is started."""
        return self._identity

    def save(self, identity: Identity) -> None:
        """Remember it."""
        self._identity = identity

    def clear(self) -> None:
        """Forget it."""
        self._identity = None


class SessionStateStore:
    """For Streamlit: in `st.session_state`, so it survives reruns and each browser tab has its own."""

    def __init__(self, pool: str) -> None:
        self._key = f"_presence_identity:{pool}"

    def load(self) -> Identity | None:
        """The identity, or None before a session is started."""
        identity: Identity | None = _session_state().get(self._key)
        return identity

    def save(self, identity: Identity) -> None:
        """Remember it."""
        _session_state()[self._key] = identity

    def clear(self) -> None:
        """Forget it."""
        _session_state().pop(self._key, None)


def is_in_streamlit_run() -> bool:
    """Whether a Streamlit script is running in this thread. Never imports Streamlit: a run has done so."""
    if "streamlit" not in sys.modules:
        return False
    from streamlit.runtime.scriptrunner import get_script_run_ctx  # noqa: PLC0415 - only where Streamlit is

    return get_script_run_ctx(suppress_warning=True) is not None


def _session_state() -> Any:  # noqa: ANN401 - Streamlit's own type
    import streamlit as st  # noqa: PLC0415 - only where Streamlit is

    return st.session_state


def valid_id(name: str) -> str:
    """`name` as it stands if the server takes it as an id; else one made of it, always the same for the same name.

    User names have spaces and umlauts; ids are `[A-Za-z0-9][A-Za-z0-9_.:@-]{0,127}`. Two names never share an id.
    """
    plain = _NOT_IN_IDS.sub("-", name).lstrip("_.:@-")[:_ID_MAX]
    if plain == name and name:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
    readable = plain[: _ID_MAX - _DIGEST - 1].rstrip("-")
    return f"{readable}-{digest}" if readable else digest


def valid_language(code: str | None) -> str | None:
    """`code` if it is a language code, else None, which the server takes for English."""
    return code if code and len(code) <= _LANGUAGE_MAX and _LANGUAGE.fullmatch(code) else None


def valid_page(page: str | None) -> str | None:
    """`page` without what the server would refuse."""
    return None if page is None else _CONTROL.sub(" ", page)[:_PAGE_MAX]
