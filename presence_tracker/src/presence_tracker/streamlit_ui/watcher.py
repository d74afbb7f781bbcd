"""The watcher: hears in the browser what the iframe hears, and reruns the app when that is news to Python.

Where Streamlit has no components that could, a fragment asks the server instead.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import streamlit as st

from presence_tracker.streamlit_ui.assets import component, has_components
from presence_tracker.streamlit_ui.run import PageState, Placed, is_fragment_rerun, page_state

if TYPE_CHECKING:
    from presence_tracker.identity import Identity
    from presence_tracker.models import Interview
    from presence_tracker.tracker import PresenceTracker

TEXTS = ("elsewhere", "continue_here")
POLL_EVERY_S = 2.0  # where Streamlit has no components that could watch
BAD_TOKEN = "bad_token"  # noqa: S105 - the name of a reason
# Each new token makes the page connect again: where all are refused, the app would run for ever.
RENEW_AGAIN_S = 60.0

log = logging.getLogger("presence_tracker")


def place(tracker: PresenceTracker, placed: Placed) -> None:
    """Tell the browser what this run knows; heed what the page said that made the app rerun."""
    identity = tracker.identity
    if identity is None or identity.session_id is None:
        return
    if not has_components():
        _place_poll(tracker, placed)
        return
    state = page_state(tracker.api.pool)
    if state.said is not None:
        _heed(tracker, state)
    known = known_of(tracker.identity or identity, state)
    if known != placed.known:
        state.turn += placed.known is not None
        placed.known = known
        _mount(tracker, placed, state)


def _place_poll(tracker: PresenceTracker, placed: Placed) -> None:
    if placed.known is None:
        placed.known = {}
        with placed.watcher:
            st.fragment(run_every=POLL_EVERY_S)(_poll)(tracker)


def _poll(tracker: PresenceTracker) -> None:
    """Rerun the app when the server says something else than what it last said."""
    before = tracker.identity
    if not is_fragment_rerun() or before is None or not (before.is_granted or before.is_in_line):
        return
    now = tracker.standing()
    if now.is_confirmed and _seen(now.interview) != _seen(before.interview):
        st.rerun()


def _seen(interview: Interview | None) -> tuple[object, ...]:
    return () if interview is None else (interview.state, interview.position)


def known_of(identity: Identity, state: PageState) -> dict[str, Any]:
    """What Python knows, in the watcher's words."""
    interview = identity.interview
    return {
        "session": identity.session_id,
        "standing": _standing_of(identity, state),
        "position": None if interview is None else interview.position,
    }


def _standing_of(identity: Identity, state: PageState) -> str | None:
    if state.elsewhere == identity.session_id:
        return "elsewhere"
    if identity.has_ended:
        return "ended"
    if identity.interview is None:
        return None
    if identity.is_granted:
        return "granted"
    return "line" if identity.is_in_line else "out"


def _mount(tracker: PresenceTracker, placed: Placed, state: PageState) -> None:
    texts = {key: tracker.text(key) for key in TEXTS}
    data = {"session": tracker.session_id, "known": placed.known, "texts": texts}
    key = f"presence_watcher:{tracker.api.pool}:{state.turn}"
    with placed.watcher:
        component("watcher")(key=key, data=data, on_changed_change=partial(_hear, key, state))


def _hear(key: str, state: PageState) -> None:
    """Keep what the page said; a mount's own result is lost when a page of `st.navigation` mounted the watcher."""
    state.said = {"standing": None, "reason": None, **(st.session_state.get(key, {}).get("changed") or {})}


def _heed(tracker: PresenceTracker, state: PageState) -> None:
    said, state.said = state.said or {}, None
    is_elsewhere = said["standing"] == "elsewhere"
    state.elsewhere = tracker.session_id if is_elsewhere else None
    if not is_elsewhere:
        tracker.standing(claim=False)
    if said["reason"] == BAD_TOKEN:
        _renew(tracker, state)


def _renew(tracker: PresenceTracker, state: PageState) -> None:
    now = time.monotonic()
    if state.renewed_at is not None and now - state.renewed_at < RENEW_AGAIN_S:
        log.warning(
            "Even a new token is refused: %s must lead to the same server as %s, with the same secrets on all nodes.",
            tracker.client_url,
            tracker.api.url,
        )
    elif tracker.renew_token():
        state.renewed_at = now
