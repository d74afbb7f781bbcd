"""The visitor's session: opened, kept up to date with what the app says, and asked about."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from presence_tracker.api import PresenceApi
from presence_tracker.errors import NoSessionError, SessionGoneError
from presence_tracker.identity import (
    Identity,
    IdentityStore,
    MemoryStore,
    SessionStateStore,
    is_in_streamlit_run,
)
from presence_tracker.models import Interview

# A page that is reloaded may log in before the server knows that its old self has gone.
RELOAD_S, RELOAD_PATIENCE_S, RELOAD_PAUSE_S = 10.0, 2.0, 0.25
# Who ended these ways does not come back by themselves: the app must forget them first.
FINAL_REASONS = frozenset({"completed", "kicked"})
# Who lost a place these ways does not get another one merely because the app runs again.
STAYS_OUT_REASONS = frozenset({"released", "max_length", "taken_over"})
Question = Callable[[str], Interview]


class Visit:
    """The session of the visitor for whom the app runs; holds none itself but in plain Python. Thread-safe."""

    def __init__(self, api: PresenceApi, when_changed: Callable[[], None]) -> None:
        self._api = api
        self._when_changed = when_changed
        self._memory = MemoryStore()
        self._changing = threading.Lock()

    @property
    def identity(self) -> Identity | None:
        """What is known; None before a session is started."""
        return self._store.load()

    def start(self, given: Identity) -> None:
        """Another visitor than before replaces them; of the same one, page and language may be new."""
        known = self.identity
        if known is None or known.user_id != given.user_id:
            return self._store.save(given)
        return self.change(
            wanted_page=given.wanted_page or known.wanted_page,
            language_code=given.language_code or known.language_code,
        )

    def change(self, **fields: Any) -> None:  # noqa: ANN401
        """Change what is known, unless it was forgotten meanwhile."""
        with self._changing:
            store = self._store
            identity = store.load()
            if identity is not None:
                store.save(replace(identity, **fields))

    def forget(self) -> None:
        """Forget the session."""
        self._store.clear()

    def catch_up(self) -> None:
        """Tell the server what the app said while it was away, or just now."""
        if self._known().session_id is None:
            self._open(self._known())
        known = self._known()
        if known.wanted_page not in (None, known.page):
            self._tell_page(str(known.wanted_page))
        if known.language_code != known.told_language:
            self._tell_language()
        if known.wants_completion:
            self._answer(self._api.complete)

    def ask(self, question: Question) -> Interview:
        """The answer about the session; one that is gone is opened anew, one that was ended stays so."""
        self.catch_up()
        return self._answer(question)

    def claim(self, session_id: str, *, takeover: bool = False) -> Interview:
        """Claim a permit; right after a reload, wait a moment for what the user still seems to have elsewhere."""
        patient_until = self._patient_until()
        interview = self._api.claim(session_id, takeover=takeover)
        while interview.reason == "elsewhere" and time.monotonic() < patient_until:
            time.sleep(RELOAD_PAUSE_S)
            interview = self._api.claim(session_id, takeover=takeover)
        if interview.reason == "ended":
            raise SessionGoneError(interview.message, 410, "session_ended")
        return interview

    def claim_if_wanted(self, session_id: str) -> Interview:
        """For every run of an app: claim, unless the visitor is in, is out for good, or wants in and is not looking."""
        known = self._known()
        if known.is_granted or known.stays_out:
            interview = self._api.interview(session_id)
            if interview.state != "none" or interview.reason in STAYS_OUT_REASONS:
                return interview
        elif known.is_in_line or known.is_turned_away:
            session = self._api.session(session_id)
            if session["visible"] is False:
                now = Interview.from_json(session["interview"])
                return known.interview if known.interview and known.is_turned_away else now
        return self.claim(session_id)

    def renew_token(self, session_id: str) -> Interview:
        """Replace the browser's token."""
        self.change(token=self._api.new_token(session_id))
        return self._api.interview(session_id)

    @property
    def _store(self) -> IdentityStore:
        return SessionStateStore(self._api.pool) if is_in_streamlit_run() else self._memory

    def _known(self) -> Identity:
        identity = self.identity
        if identity is None:
            raise NoSessionError("No session was started: call mark_session_started(user_id=...) first.")
        return identity

    def _open(self, identity: Identity) -> str:
        opened = self._api.open_session(
            identity.user_id,
            identity.language_code,
            identity.wanted_page,
            identity.wanted_id,
            identity.metadata,
        )
        self.change(
            session_id=opened.session_id,
            token=opened.token,
            client_url=opened.client_url,
            page=identity.wanted_page,
            told_language=identity.language_code,
            interview=opened.interview,
            stays_out=False,
            opened_at=time.monotonic(),
        )
        self._when_changed()
        return opened.session_id

    def _answer(self, question: Question) -> Interview:
        known = self._known()
        if known.has_ended and known.interview is not None:
            return known.interview
        try:
            return self._learn(question(str(known.session_id)))
        except SessionGoneError as gone:
            end = self._how_it_ended(str(known.session_id)) if gone.has_ended else None
        return self._learn(question(self._open(known)) if end is None else end)

    def _how_it_ended(self, session_id: str) -> Interview | None:
        """The standing of a session that was ended for good; None: it may be opened anew."""
        try:
            end = self._api.release(session_id)  # of an ended session this changes nothing
        except SessionGoneError:
            return None
        return end if end.reason in FINAL_REASONS else None

    def _learn(self, interview: Interview) -> Interview:
        is_out = interview.state == "none"
        self.change(
            interview=interview,
            has_ended=is_out and interview.reason in FINAL_REASONS,
            stays_out=is_out and interview.reason in STAYS_OUT_REASONS,
        )
        self._when_changed()
        return interview

    def _patient_until(self) -> float:
        now = time.monotonic()
        return now + RELOAD_PATIENCE_S if now - self._known().opened_at < RELOAD_S else now

    def _tell_page(self, page: str) -> None:
        def tell(session_id: str) -> Interview:
            session = self._api.set_page(session_id, page)
            return Interview.from_json(session["interview"])

        self._answer(tell)
        self.change(page=page)

    def _tell_language(self) -> None:
        """There is no other way to tell it than to open the session again, which must not revive an ended one."""

        def tell(session_id: str) -> Interview:
            self._api.interview(session_id)
            known = self._known()
            opened = self._api.open_session(known.user_id, known.language_code, session_id=session_id)
            return opened.interview

        language = self._known().language_code
        self._answer(tell)
        self.change(told_language=language)
