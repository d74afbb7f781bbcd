"""The waiting room: nobody gets past `require_interview` without a place, and nobody is left without a word."""

# ruff: noqa: PLC0415 - AppTest takes a function's source, which must bring its imports
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from presence_tracker import PresenceTracker
from tests.conftest import TEST_API_KEY
from tests.tracker.conftest import StartNode
from tests.tracker.servers import Switch, answering, nobody_there, silence, switched
from tests.tracker.ui.conftest import App, MakeApp, Other

AWAY = "cannot check for a free place"


def interview() -> None:
    import streamlit as st

    from presence_tracker import get_presence_tracker

    presence = get_presence_tracker()
    presence.mark_session_started(
        "anna",
        language_code=st.session_state.get("language"),
        session_id=st.session_state.get("session_id"),
    )
    presence.require_interview(current_page="learning")
    st.title("Learning")


def old_app_with_room() -> None:
    import streamlit as st

    from presence_tracker import get_presence_tracker

    presence = get_presence_tracker()
    presence.mark_session_started("anna")
    can_start, _ = presence.can_start_interview()
    presence.waiting_room()
    st.title("Learning" if can_start else "Please wait")


def looking() -> None:
    import streamlit as st
    from presence_tracker.streamlit_ui import room

    from presence_tracker import get_presence_tracker

    presence = get_presence_tracker()
    presence.mark_session_started("anna")
    st.session_state.runs = st.session_state.get("runs", 0) + 1
    st.write(f"runs: {st.session_state.runs}")
    shown = st.session_state.get("shown")
    st.session_state.shown = presence.standing()
    if shown:
        room._look(presence, shown)


def is_in(app: App) -> bool:
    assert not app.errors
    return "Learning" in app.texts


def room(app: App) -> dict[str, Any]:
    told = app.component("room")
    assert told is not None
    return told


@pytest.fixture
def ben(other: Other) -> PresenceTracker:
    """Who has the only place."""
    ben = other("ben")
    ben.claim()
    return ben


@pytest.fixture
def relay(one_place: str) -> Iterator[tuple[str, Switch]]:
    """A server that can be away: its address and its switch."""
    with switched(one_place) as relay:
        yield relay


def test_who_has_a_place_goes_on_and_sees_no_room(app: MakeApp) -> None:
    anna = app(interview).run()
    assert is_in(anna)
    assert (anna.texts, anna.buttons, anna.component("room")) == (["Learning"], [], None)


@pytest.mark.usefixtures("ben")
def test_who_waits_sees_the_place_in_line_and_nothing_of_the_page(app: MakeApp) -> None:
    anna = app(interview).run()
    assert not is_in(anna)
    assert room(anna)["interview"]["position"] == 1
    assert "next in line" in room(anna)["interview"]["message"]
    assert room(anna)["session"] == anna.client["session"]
    assert anna.buttons == ["Leave the line"]


def test_the_next_in_line_goes_on_when_the_place_is_free(app: MakeApp, ben: PresenceTracker) -> None:
    anna = app(interview).run()
    ben.mark_session_completed()
    assert is_in(anna.run())


@pytest.mark.usefixtures("ben")
@pytest.mark.parametrize(
    ("language", "title", "leave"),
    [
        ("de", "Warteraum", "Warteschlange verlassen"),
        ("nl", "Wachtruimte", "Wachtrij verlaten"),
        ("xx", "Waiting room", "Leave the line"),
    ],
)
def test_it_speaks_the_participants_language(app: MakeApp, language: str, title: str, leave: str) -> None:
    anna = app(interview).run(language=language)
    assert (anna.texts, anna.buttons) == ([title], [leave])
    assert "{position}" in room(anna)["texts"]["position"]


def test_who_leaves_the_line_stays_out_until_they_enter_again(app: MakeApp, ben: PresenceTracker) -> None:
    anna = app(interview).run().click("Leave the line")
    assert ben.capacity().waiting == 0
    assert anna.run().buttons == ["Enter now"]
    assert anna.component("room") is None
    assert anna.click("Enter now").buttons == ["Leave the line"]
    assert ben.capacity().waiting == 1


def test_who_is_in_elsewhere_may_continue_here(
    app: MakeApp, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("presence_tracker.visit.RELOAD_PATIENCE_S", 0)
    there = other("anna", session_id="there")
    there.claim()
    anna = app(interview).run(session_id="here")
    assert not is_in(anna)
    assert anna.buttons == ["Continue here"]
    assert "another window" in anna.texts[0]
    assert is_in(anna.click("Continue here"))
    assert not there.can_start_interview()[0]


def test_whose_place_went_to_another_window_may_take_it_back(app: MakeApp, other: Other) -> None:
    anna = app(interview).run(session_id="here")
    other("anna", session_id="there").claim(takeover=True)
    assert not is_in(anna.run())
    assert is_in(anna.click("Continue here"))


def test_who_is_done_is_thanked_and_offered_nothing(app: MakeApp, other: Other) -> None:
    anna = app(interview).run()
    other("operator").api.complete(anna.client["session"])
    assert not is_in(anna.run())
    assert anna.buttons == []
    assert "Thank you" in anna.texts[0]


def test_a_granted_page_is_warned_before_its_time_is_over(start_node: StartNode) -> None:
    node = start_node(max_interview_s=120)
    anna = App(interview, {"url": node, "api_key": TEST_API_KEY}).run()
    assert is_in(anna)
    assert any("about 2 min" in text for text in anna.texts)


def test_an_app_may_show_the_room_and_go_on(app: MakeApp, ben: PresenceTracker) -> None:
    anna = app(old_app_with_room).run()
    assert anna.texts == ["Please wait", "Waiting room"]
    ben.mark_session_completed()
    assert anna.run().texts == ["Learning"]


@pytest.mark.usefixtures("old_streamlit")
def test_an_old_streamlit_shows_the_room_as_text(app: MakeApp, ben: PresenceTracker) -> None:
    anna = app(interview).run()
    assert not is_in(anna)
    assert any("Your place in line: 1" in text and "not known yet" in text for text in anna.texts)
    assert anna.buttons == ["Leave the line"]
    ben.mark_session_completed()
    assert is_in(anna.run())


@pytest.mark.usefixtures("ticks", "ben")
def test_looking_again_changes_nothing_while_nothing_changed(app: MakeApp) -> None:
    anna = app(interview).run().run()
    assert room(anna)["interview"]["position"] == 1


def test_who_was_in_goes_on_while_the_server_is_away_and_is_told(relay: tuple[str, Switch]) -> None:
    url, switch = relay
    anna = App(interview, {"url": url, "api_key": TEST_API_KEY}).run()
    switch.is_on = False
    assert is_in(anna.run())
    assert any("You can go on" in text for text in anna.texts)
    switch.is_on = True
    assert anna.run().texts == ["Learning"]


@pytest.mark.usefixtures("ben")
def test_who_waits_is_told_that_the_server_is_away_and_waits_on_when_it_is_back(
    relay: tuple[str, Switch],
) -> None:
    url, switch = relay
    anna = App(interview, {"url": url, "api_key": TEST_API_KEY}).run()
    switch.is_on = False
    assert not is_in(anna.run())
    assert any(AWAY in text for text in anna.texts)
    assert anna.buttons == []
    switch.is_on = True
    assert room(anna.run())["interview"]["position"] == 1


def test_a_server_that_refuses_connections_is_said_to_be_away() -> None:
    anna = App(interview, {"url": nobody_there(), "api_key": TEST_API_KEY}).run()
    assert not is_in(anna)
    assert any(AWAY in text for text in anna.texts)


def test_a_server_that_answers_503_is_said_to_be_away() -> None:
    with answering((503, {"title": "Redis is away"})) as canned:
        anna = App(interview, {"url": canned.url, "api_key": TEST_API_KEY}).run()
    assert not is_in(anna)
    assert any(AWAY in text for text in anna.texts)


def test_a_server_that_never_answers_is_said_to_be_away() -> None:
    with silence() as url:
        anna = App(interview, {"url": url, "api_key": TEST_API_KEY}).run()
    assert not is_in(anna)
    assert any(AWAY in text for text in anna.texts)


@pytest.mark.usefixtures("ticks")
def test_the_room_is_left_when_a_look_from_python_finds_a_place(app: MakeApp, ben: PresenceTracker) -> None:
    anna = app(looking).run()
    assert anna.texts == ["runs: 1"]
    anna.run()
    assert anna.texts == ["runs: 2"]
    ben.mark_session_completed()
    assert anna.run().texts[0] == "runs: 4"


@pytest.mark.usefixtures("ticks")
def test_whoever_was_turned_away_gets_in_by_a_look_from_python_and_not_before(
    app: MakeApp, other: Other
) -> None:
    api = other("operator").api
    api._ask("PUT", "/v1/pools/main", {"mode": "closed"})
    anna = app(looking).run().run()
    assert anna.texts[0] == "runs: 2"
    assert "No interviews" in anna.texts[1]
    api._ask("PUT", "/v1/pools/main", {"mode": "open"})
    assert anna.run().texts[0] == "runs: 4"
