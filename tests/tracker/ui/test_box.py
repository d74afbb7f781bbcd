"""The capacity box."""

# ruff: noqa: PLC0415 - AppTest takes a function's source, which must bring its imports
from __future__ import annotations

from tests.conftest import TEST_API_KEY
from tests.tracker.servers import nobody_there
from tests.tracker.ui.conftest import App, MakeApp, Other


def operator() -> None:
    import streamlit as st

    from presence_tracker import get_presence_tracker

    presence = get_presence_tracker(embed=False, texts=st.session_state.get("texts"))
    presence.capacity_box(run_every=None)
    st.title("Below")


def metrics(app: App) -> list[tuple[str, str]]:
    return [(str(each.label), str(each.value)) for each in app.test.metric]


def test_it_counts_who_is_in_who_waits_and_who_is_here(app: MakeApp, other: Other) -> None:
    for name in ("anna", "ben", "cem"):
        other(name).claim()
    box = app(operator).run()
    assert metrics(box) == [("Interviews", "1 of 1"), ("Waiting", "2"), ("Online", "3")]
    assert not box.errors


def test_a_server_that_is_away_is_said_so_and_the_page_goes_on() -> None:
    box = App(operator, {"url": nobody_there(), "api_key": TEST_API_KEY}).run()
    assert box.texts == ["Below", "The presence server does not answer."]
    assert not box.errors


def test_a_pool_without_places_is_full(app: MakeApp, other: Other) -> None:
    other("operator").api.declare_limit(0)
    assert metrics(app(operator).run())[0] == ("Interviews", "0 of 0")


def test_the_apps_own_texts_stand_in_front(app: MakeApp) -> None:
    texts = {"en": {"capacity_active": "{active}/{limit} rooms"}}
    assert metrics(app(operator).run(texts=texts))[0] == ("0/1 rooms", "")
