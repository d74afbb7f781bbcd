"""The watcher: what the browser is told that Python knows, and what Python does when the page knows better."""

# ruff: noqa: PLC0415 - AppTest takes a function's source, which must bring its imports
from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.tracker.ui.conftest import MakeApp, Other


def old_app() -> None:
    import streamlit as st

    from presence_tracker import get_presence_tracker

    presence = get_presence_tracker()
    presence.mark_session_started(st.session_state.get("user", "anna"))
    if not st.session_state.get("at_home"):
        can_start, message = presence.can_start_interview()
        st.write("in" if can_start else message)


def strict_app() -> None:
    import streamlit as st

    from presence_tracker import get_presence_tracker

    presence = get_presence_tracker()
    presence.mark_session_started("anna")
    presence.require_interview()
    st.title("Learning")


def polling_app() -> None:
    import streamlit as st
    from presence_tracker.streamlit_ui import watcher

    from presence_tracker import get_presence_tracker

    presence = get_presence_tracker()
    presence.mark_session_started("anna")
    st.session_state.runs = st.session_state.get("runs", 0) + 1
    if st.session_state.get("polls"):
        st.session_state.polls = False
        watcher._poll(presence)
    st.write(f"in: {presence.can_start_interview()[0]}")


def app_with_pages() -> None:
    import streamlit as st

    from presence_tracker import get_presence_tracker

    presence = get_presence_tracker()
    presence.mark_session_started("anna")

    def learning() -> None:
        presence.require_interview()
        st.title("Learning")

    st.navigation([st.Page(learning)]).run()


def test_the_browser_learns_in_the_same_run_what_its_claim_gave(app: MakeApp) -> None:
    anna = app(old_app).run(at_home=True)
    assert anna.standing == "out"
    assert anna.run(at_home=False).standing == "granted"
    ben = app(old_app).run(user="ben").component("watcher")
    assert ben is not None
    assert (ben["known"]["standing"], ben["known"]["position"]) == ("line", 1)


def test_a_run_that_learns_nothing_new_leaves_the_watcher_as_it_is(app: MakeApp) -> None:
    anna = app(old_app).run()
    before = anna.watcher_key
    assert anna.run().run().watcher_key == before


def test_the_run_after_a_grant_knows_of_it(app: MakeApp, other: Other) -> None:
    ben = other("ben")
    ben.claim()
    anna = app(old_app).run()
    assert anna.standing == "line"
    ben.mark_session_completed()
    assert anna.hear("granted").standing == "granted"
    assert "in" in anna.texts


def test_an_app_that_asks_nothing_knows_of_a_lost_place(app: MakeApp, other: Other) -> None:
    anna = app(old_app).run()
    other("operator").api.release(anna.client["session"])
    anna.run(at_home=True)
    assert anna.standing == "granted"
    assert anna.hear("out", "released").standing == "out"


def test_who_was_thrown_out_is_told_so(app: MakeApp, other: Other) -> None:
    anna = app(strict_app).run()
    other("operator").api.complete(anna.client["session"])
    assert anna.hear("ended", "completed").standing == "ended"
    assert "Learning" not in anna.texts
    assert (anna.buttons, len(anna.texts)) == ([], 1)


@pytest.mark.parametrize("script", [strict_app, app_with_pages])
def test_a_page_whose_session_another_tab_has_stops_until_it_is_continued_here(
    app: MakeApp, script: Callable[[], None]
) -> None:
    anna = app(script).run()
    assert anna.texts == ["Learning"]
    assert anna.hear("elsewhere", "taken_over").texts == []
    assert anna.standing == "elsewhere"
    assert anna.run().texts == []
    assert anna.hear("granted").texts == ["Learning"]
    assert anna.standing == "granted"


@pytest.mark.usefixtures("ticks")
def test_without_components_the_app_runs_again_when_the_server_says_something_new(
    app: MakeApp, other: Other
) -> None:
    ben = other("ben")
    ben.claim()
    anna = app(polling_app).run()
    anna.run(polls=True)
    assert anna.test.session_state.runs == 2
    ben.mark_session_completed()
    anna.run(polls=True)
    assert anna.test.session_state.runs == 4
    assert anna.texts == ["in: True"]
