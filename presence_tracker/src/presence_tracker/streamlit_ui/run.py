"""What belongs to one run of the app's script, and what to one visitor's page over all its runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

_MARK = "_presence_tracker_run"


@dataclass(slots=True)
class Placed:
    """Where a pool's client stands in the app, and what the browser was told in this run."""

    html: str
    frame: DeltaGenerator
    watcher: DeltaGenerator
    known: dict[str, Any] | None = None


@dataclass(slots=True)
class Run:
    """One run. `cursors` is Streamlit's own mark of it: every run begins with new ones."""

    cursors: object
    placed: dict[str, Placed] = field(default_factory=dict)


@dataclass(slots=True)
class PageState:
    """What the visitor's page is at, from run to run.

    `turn` counts the watchers: within one run, a second one needs another key. `said`: what the page said that made
    the app rerun, until a run heeds it. `elsewhere`: the session that another tab has now. `had_session`: what was
    forgotten since is not to be revived. `renewed_at`: when a refused token was replaced, in monotonic time.
    """

    turn: int = 0
    said: dict[str, Any] | None = None
    elsewhere: str | None = None
    had_session: bool = False
    renewed_at: float | None = None


def current_run() -> Run | None:
    """This run; None outside Streamlit, and where elements would not last, or not stay with this visitor.

    A fragment's come and go without the rest of the app; those of a cached function are shown to every visitor.
    """
    ctx = get_script_run_ctx(suppress_warning=True)
    if ctx is None or is_fragment_rerun() or _is_in_fragment(ctx) or is_in_cached_function():
        return None
    run: Run | None = getattr(ctx, _MARK, None)
    if run is None or run.cursors is not ctx.cursors:
        run = Run(ctx.cursors)
        setattr(ctx, _MARK, run)
    return run


def is_fragment_rerun() -> bool:
    """Whether only a fragment of the app is running."""
    return bool(getattr(get_script_run_ctx(suppress_warning=True), "fragment_ids_this_run", None))


def is_in_cached_function() -> bool:
    """Whether a function of `st.cache_resource` or `st.cache_data` is being computed."""
    try:
        from streamlit.runtime.scriptrunner_utils.script_run_context import in_cached_function  # noqa: PLC0415
    except ImportError:
        return False
    return in_cached_function.get()


def _is_in_fragment(ctx: object) -> bool:
    if hasattr(ctx, "current_fragment_id"):  # Streamlit of 2025 and before
        return ctx.current_fragment_id is not None
    try:
        from streamlit.runtime.scriptrunner_utils.script_run_context import ThreadState  # noqa: PLC0415

        return ThreadState.get().fragment_id is not None
    except (ImportError, RuntimeError):
        return False


def page_state(pool: str) -> PageState:
    """The state of this visitor's page."""
    state: PageState = st.session_state.setdefault(f"_presence_page:{pool}", PageState())
    return state
