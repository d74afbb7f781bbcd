"""The browser client in the app: an invisible iframe that keeps its connection, and the watcher beside it.

An iframe survives a rerun only when it stands in the same place with the same HTML, to the byte. So it is placed first,
once in a run, and its HTML follows from the session alone: page names travel over HTTP.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import streamlit as st

from presence_tracker.errors import PresenceConfigError
from presence_tracker.streamlit_ui import watcher
from presence_tracker.streamlit_ui.assets import read
from presence_tracker.streamlit_ui.run import Placed, current_run, is_in_cached_function, page_state

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

    from presence_tracker.tracker import PresenceTracker

HEIGHT = 1  # Streamlit refuses 0
FILE = "/client.js"
CACHED = (
    "Call get_presence_tracker() in every run, not in a function of st.cache_resource or st.cache_data: "
    "it keeps its connection by itself, and each visitor needs a browser client of their own."
)
HEAD = '<!doctype html><meta charset="utf-8"><title>Presence</title>'


def embed(tracker: PresenceTracker, current_page: str | None = None) -> None:
    """Place the client, if this run has not yet; tell the page."""
    if current_page is not None:
        tracker.set_page(current_page)
    place_client(tracker)


def place_client(tracker: PresenceTracker) -> None:
    """Place the client of the visitor's session; a second call in a run brings the first one's up to date.

    PresenceConfigError in a cached function: Streamlit would give this visitor's client, and token, to all others too.
    """
    if is_in_cached_function():
        raise PresenceConfigError(CACHED)
    run = current_run()
    if run is None:
        return
    if tracker.api.pool not in run.placed:
        html = client_html(tracker)
        run.placed[tracker.api.pool] = Placed(html, _place(html), st.empty())
    update_client(tracker)


def update_client(tracker: PresenceTracker) -> None:
    """Tell a client that this run has placed what has changed since: the session, its standing."""
    run = current_run()
    placed = None if run is None else run.placed.get(tracker.api.pool)
    if placed is None:
        return
    watcher.place(tracker, placed)
    html = client_html(tracker)
    if html != placed.html:
        placed.html = html
        _replace(placed.frame, html)


def client_html(tracker: PresenceTracker) -> str:
    """The iframe's document. Its only secret is the token of the visitor's own session.

    Before a session is started it revives the one that this tab had before a reload, if any; after one was forgotten
    it connects nothing.
    """
    identity, state = tracker.identity, page_state(tracker.api.pool)
    session_id = None if identity is None else identity.session_id
    if session_id is None and state.had_session:
        return HEAD
    state.had_session = session_id is not None
    token = None if identity is None else identity.token
    url = tracker.client_url.removesuffix(FILE)
    config = {"client": tracker.client_url, "url": url, "session": session_id, "token": token}
    inert = json.dumps(config).replace("<", "\\u003c")  # so that no value can end the script
    return (
        f'{HEAD}<script type="application/json" id="config">{inert}</script>'
        f'<script type="module">\n{read("frame.js")}</script>\n'
    )


def _place(html: str) -> DeltaGenerator:
    if hasattr(st, "iframe"):
        return st.iframe(html, height=HEIGHT, tab_index=-1)
    from streamlit.components import v1  # noqa: PLC0415 - newer ones warn of it

    return v1.html(html, height=HEIGHT)


def _replace(frame: DeltaGenerator, html: str) -> None:
    if hasattr(st, "iframe"):
        frame.iframe(html, height=HEIGHT, tab_index=-1)
    else:
        frame._html(html, height=HEIGHT)  # noqa: SLF001 - what `v1.html` is, in this frame's place
