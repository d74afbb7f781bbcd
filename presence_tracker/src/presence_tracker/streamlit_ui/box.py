"""The capacity box: how full it is, for operators and for whoever wonders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from presence_tracker.errors import PresenceUnavailableError

if TYPE_CHECKING:
    from presence_tracker.tracker import PresenceTracker


def capacity_box(tracker: PresenceTracker, run_every: float | None = 5) -> None:
    """Show how full it is, anew every `run_every` seconds, without a rerun of the app."""
    st.fragment(run_every=run_every)(_draw)(tracker)


def _draw(tracker: PresenceTracker) -> None:
    with st.container(border=True):
        try:
            capacity = tracker.capacity()
        except PresenceUnavailableError:
            st.warning(tracker.text("capacity_away"))
            return
        lines = (
            tracker.text("capacity_active", active=capacity.active, limit=capacity.limit),
            tracker.text("capacity_waiting", waiting=capacity.waiting),
            tracker.text("capacity_online", online=capacity.sessions_online),
        )
        for column, line in zip(st.columns(len(lines)), lines, strict=True):
            label, _, value = line.partition(":")
            column.metric(label, value.strip())
        st.progress(min(1.0, capacity.active / capacity.limit) if capacity.limit else 1.0)
