"""The waiting room, and `require_interview`, which lets nobody past it without a place."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

import streamlit as st

from presence_tracker.errors import PresenceUnavailableError
from presence_tracker.models import Interview, Standing
from presence_tracker.streamlit_ui.assets import component, has_components
from presence_tracker.streamlit_ui.run import is_fragment_rerun, page_state

if TYPE_CHECKING:
    from presence_tracker.tracker import PresenceTracker

# The watcher reruns the app at once; looking from here is for browsers that do not reach the server.
LOOK_EVERY_S, LOOK_EVERY_ALONE_S = 10.0, 2.0
ENDS_SOON_S = 300.0
MINUTE_S = 60.0
TEXTS = ("position", "wait", "wait_range", "wait_short", "wait_unknown", "server_away")
IN_OTHER_WINDOW = ("elsewhere", "taken_over")


def require_interview(tracker: PresenceTracker, current_page: str | None = None) -> Interview:
    """The interview of a visitor who may be in it; everybody else sees the waiting room, and the run stops."""
    if current_page is not None:
        tracker.set_page(current_page)
    standing = _ask(tracker)
    if not standing.may_enter or _is_elsewhere(tracker):
        _show(tracker, standing)
        st.stop()
    _warn(tracker, standing)
    return standing.interview


def waiting_room(tracker: PresenceTracker) -> None:
    """Show where the visitor stands. Who is in sees nothing."""
    standing = _ask(tracker)
    if not standing.may_enter:
        _show(tracker, standing)


def _ask(tracker: PresenceTracker) -> Standing:
    return tracker.standing(claim=not _is_elsewhere(tracker))


def _is_elsewhere(tracker: PresenceTracker) -> bool:
    """Whether another tab of the same browser has this session now. The watcher says so, at the top of the page."""
    elsewhere = page_state(tracker.api.pool).elsewhere
    return elsewhere is not None and elsewhere == tracker.session_id


def _warn(tracker: PresenceTracker, standing: Standing) -> None:
    if not standing.is_confirmed:
        st.warning(tracker.text("unconfirmed"))
    ends_in_s = standing.interview.ends_in_s
    if ends_in_s is not None and ends_in_s < ENDS_SOON_S:
        st.warning(tracker.text("ends_soon", minutes=math.ceil(ends_in_s / MINUTE_S)))


def _show(tracker: PresenceTracker, standing: Standing) -> None:
    """The room of whoever may not enter, with what they can do about it."""
    if _is_elsewhere(tracker):
        return
    if standing.interview.is_in_line or not standing.is_confirmed:
        st.subheader(tracker.text("title"), anchor=False)
    _keep_looking(tracker, standing)
    _offer_ways(tracker, standing)


def _offer_ways(tracker: PresenceTracker, standing: Standing) -> None:
    interview = standing.interview
    if not standing.is_confirmed or _has_ended(tracker):
        return
    if interview.is_in_line:
        _button(tracker, "leave", _leave)
    elif interview.reason in IN_OTHER_WINDOW:
        _button(tracker, "continue_here", _continue_here)
    else:
        _button(tracker, "enter", _enter)


def _has_ended(tracker: PresenceTracker) -> bool:
    identity = tracker.identity
    return identity is not None and identity.has_ended


def _button(tracker: PresenceTracker, name: str, act: Callable[[PresenceTracker], None]) -> None:
    st.button(tracker.text(name), key=f"presence_{name}:{tracker.api.pool}", on_click=act, args=(tracker,))


def _leave(tracker: PresenceTracker) -> None:
    with suppress(PresenceUnavailableError):  # the run that follows says that the server is away
        tracker.leave()


def _enter(tracker: PresenceTracker) -> None:
    with suppress(PresenceUnavailableError):
        tracker.claim()


def _continue_here(tracker: PresenceTracker) -> None:
    with suppress(PresenceUnavailableError):
        tracker.claim(takeover=True)


def _keep_looking(tracker: PresenceTracker, standing: Standing) -> None:
    every_s = LOOK_EVERY_S if has_components() and standing.is_confirmed else LOOK_EVERY_ALONE_S
    st.fragment(run_every=every_s)(_look)(tracker, standing)


def _look(tracker: PresenceTracker, shown: Standing) -> None:
    """Show the standing; when run again by itself, look whether it still is so, and rerun the app if not."""
    now = shown
    if is_fragment_rerun():
        wants_in = shown.interview.is_in_line or shown.interview.is_denied or not shown.is_confirmed
        now = tracker.standing(claim=wants_in)
        if _kind(now) != _kind(shown):
            st.rerun()
    _draw(tracker, now.interview)


def _kind(standing: Standing) -> tuple[object, ...]:
    interview = standing.interview
    return standing.may_enter, standing.is_confirmed, interview.is_in_line, interview.reason


def _draw(tracker: PresenceTracker, interview: Interview) -> None:
    if not interview.is_in_line:
        st.info(interview.message)
    elif has_components():
        _draw_live(tracker, interview)
    else:
        st.info("\n\n".join([interview.message, *_facts(tracker, interview)]))


def _draw_live(tracker: PresenceTracker, interview: Interview) -> None:
    # The placeholders stay in the texts; the browser fills them.
    texts = {
        key: tracker.text(key, position="{position}", minutes="{minutes}", most="{most}") for key in TEXTS
    }
    data = {"session": tracker.session_id, "interview": asdict(interview), "texts": texts}
    component("room")(key=f"presence_room:{tracker.api.pool}", data=data)


def _facts(tracker: PresenceTracker, interview: Interview) -> list[str]:
    """Position and time, as `room.js` says them."""
    if interview.state != "waiting":
        return []
    place = [] if interview.position is None else [tracker.text("position", position=interview.position)]
    return [*place, _wait(tracker, interview)]


def _wait(tracker: PresenceTracker, interview: Interview) -> str:
    if interview.eta_s is None:
        return tracker.text("wait_unknown")
    minutes = max(1, math.ceil(interview.eta_s / MINUTE_S))
    most = math.ceil((interview.eta_max_s or interview.eta_s) / MINUTE_S)
    if most > minutes:
        return tracker.text("wait_range", minutes=minutes, most=most)
    return tracker.text("wait_short" if interview.eta_s < MINUTE_S else "wait", minutes=minutes)
