"""`PresenceTracker`: what an app calls. The names of the tracker that it replaces, and some more."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from presence_tracker.api import PresenceApi
from presence_tracker.config import Config
from presence_tracker.errors import PresenceUnavailableError
from presence_tracker.identity import Identity, is_in_streamlit_run, valid_id, valid_language, valid_page
from presence_tracker.models import Capacity, Interview, Standing
from presence_tracker.texts import Texts
from presence_tracker.visit import Visit


class PresenceTracker:
    """Tells the server who is here, and asks it who may come in.

    It holds no session itself: one tracker may serve all sessions of a Streamlit app, each finds its own in its
    `st.session_state`. In plain Python a tracker has one session. Two threads may use it at once.

    The server being away raises nothing where a participant waits for an answer; `count_*`, `capacity` and what else
    has only the server's answer to give raise PresenceUnavailableError.
    """

    def __init__(
        self,
        api: PresenceApi,
        config: Config,
        *,
        fail_open: bool = False,
        places_client: bool = True,
        texts: Texts | None = None,
    ) -> None:
        self.api = api
        self.texts = texts or Texts()
        self.fail_open = fail_open
        self.places_client = places_client
        self._config = config
        self._visit = Visit(api, when_changed=self._update_client)

    def __repr__(self) -> str:
        return f"PresenceTracker({self.api!r})"

    # What the old tracker did

    def mark_session_started(
        self,
        user_id: str,
        language_code: str | None = None,
        current_page: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        session_id: str | None = None,
    ) -> str:
        """Open the visitor's session, or resume the one that this user had; returns its id.

        It may be called in every run. A session that was completed or kicked stays ended until `forget()`, a reload
        or another user. While the server is away the id is empty, and the session is opened as soon as it is back.
        """
        given = Identity(
            user_id=valid_id(user_id),
            language_code=valid_language(language_code),
            wanted_page=valid_page(current_page),
            metadata=metadata,
            wanted_id=None if session_id is None else valid_id(session_id),
        )
        self._visit.start(given)
        self.catch_up()
        return self.session_id or ""

    def mark_session_completed(self) -> None:
        """End the visitor's session as completed; its place goes to the next in line.

        Without a session it does nothing. While the server is away it is remembered, and done as soon as it is back.
        """
        if self.identity is not None:
            self._visit.change(wants_completion=True)
            self.catch_up()

    def can_start_interview(self) -> tuple[bool, str]:
        """Claim a place, or one in line: whether the visitor may be in the interview, and a sentence for them.

        While the server is away: only who was in already may be (`fail_open`: everybody).
        """
        standing = self.standing()
        return standing.may_enter, standing.interview.message

    def count_active_sessions(self) -> int:
        """How many sessions are present now."""
        return self.capacity().sessions_online

    def count_active_interviews(self) -> int:
        """How many hold a place in the interview now."""
        return self.capacity().active

    def cleanup_stale_sessions(self, hours: float = 3) -> int:
        """Mark sessions as abandoned that were last seen more than `hours` ago; how many."""
        return self.api.cleanup(hours)

    @property
    def max_concurrent(self) -> int:
        """How many may be in the interview at once: what the server obeys now."""
        return int(self.api.pool_config()["limit"])

    @property
    def online_window_seconds(self) -> float:
        """For how long one sign of life of a page without WebSocket counts."""
        return float(self.api.pool_config()["online_window_s"])

    # More

    def set_page(self, current_page: str) -> None:
        """Tell which page the visitor is on. Without a session it does nothing; while the server is away it is kept."""
        if self.identity is not None:
            self._visit.change(wanted_page=valid_page(current_page))
            self.catch_up()

    def capacity(self) -> Capacity:
        """How full the pool is."""
        return self.api.capacity()

    def claim(self, *, takeover: bool = False) -> Interview:
        """Claim a place, or one in line; with `takeover`, what the user has in another window."""
        return self._visit.ask(partial(self._visit.claim, takeover=takeover))

    def interview(self) -> Interview:
        """How the visitor stands; claims nothing."""
        return self._visit.ask(self.api.interview)

    def leave(self) -> Interview:
        """Give back the place, or leave the line."""
        return self._visit.ask(self.api.release)

    def standing(self, *, claim: bool = True) -> Standing:
        """Whether the visitor may be in the interview now; never raises for a server that is away.

        `claim`: claim a place, but for who left or had their time, and from a page that nobody looks at: an offer
        never goes to an absent person. These may `claim()`.
        """
        try:
            interview = self._visit.ask(self._visit.claim_if_wanted if claim else self.api.interview)
        except PresenceUnavailableError:
            return self._standing_without_server()
        return Standing(interview, may_enter=interview.is_granted)

    def forget(self) -> None:
        """Forget the visitor's session, as at a log-out; the server sees its page go."""
        self._visit.forget()

    def catch_up(self) -> bool:
        """Tell the server what it could not be told so far; whether it knows all now. Raises nothing if it is away."""
        try:
            if self.identity is not None:
                self._visit.catch_up()
        except PresenceUnavailableError:
            return False
        return True

    def renew_token(self) -> bool:
        """Get a new token for the visitor's browser, whose old one was refused; whether the server gave one."""
        try:
            self._visit.ask(self._visit.renew_token)
        except PresenceUnavailableError:
            return False
        return True

    def text(self, key: str, **values: Any) -> str:  # noqa: ANN401
        """One of the package's own texts, in the visitor's language."""
        identity = self.identity
        return self.texts.find(key, None if identity is None else identity.language_code, **values)

    @property
    def identity(self) -> Identity | None:
        """What is known of the visitor's session; None before one is started."""
        return self._visit.identity

    @property
    def session_id(self) -> str | None:
        """The visitor's session; None before one is started, or while the server could not be asked for it."""
        identity = self.identity
        return None if identity is None else identity.session_id

    @property
    def client_url(self) -> str:
        """Where the visitor's browser loads the client from."""
        identity = self.identity
        known = None if identity is None or self._config.public_url else identity.client_url
        return known or self._config.client_url

    # Streamlit

    def embed(self, current_page: str | None = None) -> None:
        """Place the browser client here; for who called `get_presence_tracker(embed=False)`."""
        from presence_tracker import streamlit_ui  # noqa: PLC0415 - only where Streamlit is

        streamlit_ui.embed(self, current_page)

    def require_interview(self, current_page: str | None = None) -> Interview:
        """Return when the visitor may be in the interview; else show the waiting room and stop the run."""
        from presence_tracker import streamlit_ui  # noqa: PLC0415 - only where Streamlit is

        return streamlit_ui.require_interview(self, current_page)

    def waiting_room(self) -> None:
        """Show where the visitor stands, live; the app runs again when they are let in."""
        from presence_tracker import streamlit_ui  # noqa: PLC0415 - only where Streamlit is

        streamlit_ui.waiting_room(self)

    def capacity_box(self, run_every: float | None = 5) -> None:
        """Show how full it is, anew every `run_every` seconds."""
        from presence_tracker import streamlit_ui  # noqa: PLC0415 - only where Streamlit is

        streamlit_ui.capacity_box(self, run_every)

    def place_client(self) -> None:
        """Place the browser client, and what runs the app again when the visitor's standing changes."""
        if self.places_client and is_in_streamlit_run():
            from presence_tracker import streamlit_ui  # noqa: PLC0415 - only where Streamlit is

            streamlit_ui.place_client(self)

    def _update_client(self) -> None:
        """The client that was placed in this run learns of a session, or a standing, that came after it."""
        if is_in_streamlit_run():
            from presence_tracker import streamlit_ui  # noqa: PLC0415 - only where Streamlit is

            streamlit_ui.update_client(self)

    def _standing_without_server(self) -> Standing:
        """Who was in goes on; nobody else comes in, unless the app chose so."""
        known = self.identity
        if known is None or known.wants_completion:
            return Standing(self._own("ended"), may_enter=False, is_confirmed=False)
        if known.is_granted and known.interview is not None:
            return Standing(known.interview, may_enter=True, is_confirmed=False)
        if self.fail_open and not known.stays_out:
            return Standing(Interview("none"), may_enter=True, is_confirmed=False)
        return Standing(self._own("server_away"), may_enter=False, is_confirmed=False)

    def _own(self, key: str) -> Interview:
        return Interview("none", message=self.text(key))
