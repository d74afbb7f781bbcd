"""The watcher: what the browser is told that Python knows, and what Python does when the page knows better."""

# ruff: noqa: PLC0415 - AppTest takes a function's source, which must bring its imports
from __future__ import annotations

import pytest

from tests.tracker.ui.conftest import App, MakeApp, Other, Page


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


def standing(app: App) -> object:
    told = app.component("watcher")
    assert told is not None
    return told["known"]["standing"]


def test_the_browser_learns_in_the_same_run_what_its_claim_gave(app: MakeApp, other: Other) -> None:
    anna = app(old_app).run(at_home=True)
    assert standing(anna) == "out"
    assert standing(anna.run(at_home=False)) == "granted"
    ben = app(old_app).run(user="ben")
    told = ben.component("watcher")
    assert told is not None
    assert (told["known"]["standing"], told["known"]["position"]) == ("line", 1)


def test_a_run_that_learns_nothing_new_tells_the_browser_nothing_new(app: MakeApp, page: Page) -> None:
    anna = app(old_app).run()
    page.heard.clear()
    anna.run().run()
    assert [known["standing"] for known in page.heard] == ["granted", "granted"]


def test_the_run_after_a_grant_knows_of_it(app: MakeApp, other: Other, page: Page) -> None:
    ben = other("ben")
    ben.claim()
    anna = app(old_app).run()
    assert page.heard[-1]["standing"] == "line"
    ben.mark_session_completed()
    page.says = {"standing": "granted", "reason": None}
    anna.run()
    assert page.heard[-1]["standing"] == "granted"
    assert "in" in anna.texts


def test_an_app_that_asks_nothing_knows_of_a_lost_place(app: MakeApp, other: Other, page: Page) -> None:
    anna = app(old_app).run()
    session_id = page.heard[-1]["session"]
    other("operator").api.release(session_id)
    page.says = {"standing": "out", "reason": "released"}
    anna.run(at_home=True)
    assert page.heard[-1]["standing"] == "out"


def test_who_was_thrown_out_is_told_so(app: MakeApp, other: Other, page: Page) -> None:
    anna = app(strict_app).run()
    other("operator").api.complete(page.heard[-1]["session"])
    page.says = {"standing": "ended", "reason": "completed"}
    anna.run()
    assert page.heard[-1]["standing"] == "ended"
    assert "Learning" not in anna.texts
    assert (anna.buttons, len(anna.texts)) == ([], 1)


def test_a_page_whose_session_another_tab_has_stops_until_it_is_continued_here(
    app: MakeApp, page: Page
) -> None:
    anna = app(strict_app).run()
    page.says = {"standing": "elsewhere", "reason": "taken_over"}
    assert anna.run().texts == []
    assert page.heard[-1]["standing"] == "elsewhere"
    assert anna.run().texts == []
    page.says = {"standing": "granted", "reason": None}
    assert anna.run().texts == ["Learning"]
    assert page.heard[-1]["standing"] == "granted"


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
