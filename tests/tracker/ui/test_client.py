"""The browser client in an app: placed once, first, and the same to the byte in every run."""

# ruff: noqa: PLC0415 - AppTest takes a function's source, which must bring its imports
from __future__ import annotations

import pytest
from presence_tracker.streamlit_ui import watcher

from presence_tracker import PresenceApi
from tests.conftest import TEST_API_KEY
from tests.tracker.servers import nobody_there
from tests.tracker.ui.conftest import App, MakeApp, Other


def old_app() -> None:
    import streamlit as st

    from presence_tracker import get_presence_tracker

    presence = get_presence_tracker(max_concurrent=1)
    presence.mark_session_started(user_id="anna", language_code="de", current_page="home")
    st.button("again")
    can_start, message = presence.can_start_interview()
    st.write("in" if can_start else message)


def app_with_login() -> None:
    import streamlit as st

    from presence_tracker import get_presence_tracker

    presence = get_presence_tracker()
    if st.session_state.get("logs_out"):
        presence.forget()
    if user := st.session_state.get("user"):
        presence.mark_session_started(user)


def app_that_asks_twice() -> None:
    from presence_tracker import get_presence_tracker

    get_presence_tracker().mark_session_started("anna")
    get_presence_tracker().embed(current_page="learning")


def app_that_places_it_itself() -> None:
    import streamlit as st

    from presence_tracker import get_presence_tracker

    presence = get_presence_tracker(embed=False)
    presence.mark_session_started("anna")
    presence.can_start_interview()
    st.title("First")
    if st.session_state.get("embeds"):
        presence.embed()


def app_with_pages() -> None:
    import streamlit as st

    from presence_tracker import get_presence_tracker

    presence = get_presence_tracker()
    presence.mark_session_started("anna", current_page=st.session_state.page)
    st.title(st.session_state.page)


def app_with_fragment() -> None:
    import streamlit as st

    from presence_tracker import get_presence_tracker

    get_presence_tracker().mark_session_started("anna")

    @st.fragment
    def part() -> None:
        get_presence_tracker().can_start_interview()
        st.title("part")

    part()


def app_that_caches_the_tracker() -> None:
    import streamlit as st

    from presence_tracker import get_presence_tracker

    places_it = st.session_state.get("places_it", True)

    @st.cache_resource
    def tracker(places_it: bool) -> object:
        return get_presence_tracker(embed=places_it)

    presence = tracker(places_it)
    presence.mark_session_started(st.session_state.get("user", "anna"))  # type: ignore[attr-defined]
    presence.embed()  # type: ignore[attr-defined]


def test_its_html_is_identical_in_every_run(app: MakeApp) -> None:
    anna = app(old_app).run()
    first = anna.frames
    assert [anna.run().frames, anna.click("again").frames] == [first, first]


def test_it_stands_first_and_takes_the_session_up_that_the_same_run_has_started(app: MakeApp) -> None:
    anna = app(old_app).run()
    assert anna.first == "iframe"
    assert anna.client["session"]
    assert anna.client["token"]


def test_the_page_holds_no_secret_but_the_token_of_its_session(app: MakeApp) -> None:
    anna = app(old_app).run()
    assert TEST_API_KEY not in repr(anna.frames)
    watched = anna.component("watcher")
    assert watched is not None
    assert TEST_API_KEY not in repr(watched)
    assert anna.client["token"] not in repr(watched)


def test_before_a_session_is_started_it_only_revives_the_one_that_this_tab_had(app: MakeApp) -> None:
    nobody = app(app_with_login).run()
    assert (nobody.client["session"], nobody.client["token"]) == (None, None)
    assert nobody.client["client"] == f"{nobody.client['url']}/client.js"
    assert nobody.component("watcher") is None
    assert nobody.run(user="anna").client["token"]


def test_another_visitor_and_one_who_logs_out_do_not_stay_connected(app: MakeApp) -> None:
    visitor = app(app_with_login).run(user="anna")
    anna = visitor.client["session"]
    assert visitor.run(user="ben").client["session"] not in (None, anna)
    (left,) = visitor.run(user=None, logs_out=True).run().frames
    assert "<script" not in left


def test_it_is_placed_once_in_a_run(app: MakeApp) -> None:
    anna = app(app_that_asks_twice).run().run()
    assert len(anna.frames) == 1
    assert anna.component("watcher") is not None


def test_an_app_may_place_it_itself(app: MakeApp) -> None:
    anna = app(app_that_places_it_itself).run()
    assert (anna.frames, anna.component("watcher")) == ([], None)
    anna.run(embeds=True)
    assert anna.first == "title"
    assert anna.client["token"]


def test_page_names_travel_without_a_change_of_the_html(app: MakeApp, other: Other) -> None:
    anna = app(app_with_pages).run(page="home")
    before = anna.frames
    assert anna.run(page="learning").frames == before
    session = other("ben").api.session(anna.client["session"])
    assert session["current_page"] == "learning"


def test_a_fragment_places_no_second_one(app: MakeApp) -> None:
    anna = app(app_with_fragment).run().run()
    assert len(anna.frames) == 1
    assert not anna.errors


@pytest.mark.usefixtures("old_streamlit")
def test_an_old_streamlit_shows_the_same_html_in_an_iframe_of_its_own_kind(app: MakeApp) -> None:
    anna = app(old_app).run()
    assert anna.client["token"]
    assert anna.first == "iframe"
    assert anna.component("watcher") is None
    assert anna.run().frames == anna.frames
    assert "in" in anna.texts


def test_a_token_that_was_refused_is_replaced(app: MakeApp) -> None:
    anna = app(old_app).run()
    refused = anna.client
    assert anna.hear("ended", "bad_token").client["session"] == refused["session"]
    assert anna.client["token"] != refused["token"]
    fresh = anna.frames
    assert anna.run().frames == fresh


def test_a_page_whose_new_token_is_refused_too_gets_no_third_one(
    app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = iter(["token-1", "token-2"])
    monkeypatch.setattr(PresenceApi, "new_token", lambda *_: next(tokens))
    anna = app(old_app).run().hear("ended", "bad_token").hear("ended", "bad_token")
    assert anna.client["token"] == "token-1"
    monkeypatch.setattr(watcher, "RENEW_AGAIN_S", 0)
    assert anna.hear("ended", "bad_token").client["token"] == "token-2"


def test_no_value_can_end_the_script() -> None:
    url = "https://presence.example"
    anna = App(app_with_login, {"url": nobody_there(), "api_key": TEST_API_KEY, "public_url": url}).run()
    assert anna.client["url"] == url
    assert anna.frames[0].count("</script>") == 2


def test_a_client_is_placed_while_the_server_is_away() -> None:
    anna = App(old_app, {"url": nobody_there(), "api_key": TEST_API_KEY}).run()
    assert not anna.errors
    assert len(anna.frames) == 1


@pytest.mark.parametrize(
    ("secrets", "sentence"),
    [
        ({}, "PRESENCE_URL"),
        ({"url": "https://presence.example"}, "api_key"),
        ({"url": "presence.example", "api_key": TEST_API_KEY}, "http"),
    ],
)
def test_missing_and_wrong_secrets_are_one_clear_sentence_in_the_app(
    secrets: dict[str, str], sentence: str
) -> None:
    ((kind, message),) = App(old_app, secrets).run().errors
    assert kind == "PresenceConfigError"
    assert sentence in message
    assert "\n" not in message


def test_a_key_that_the_server_refuses_is_one_clear_sentence_in_the_app(app: MakeApp) -> None:
    ((kind, message),) = app(old_app, api_key="another-key-for-tests-0123456789").run().errors
    assert kind == "PresenceConfigError"
    assert "api_key" in message


def test_a_client_in_a_cached_function_would_be_everybodys_and_is_refused(app: MakeApp) -> None:
    anna = app(app_that_caches_the_tracker).run()
    ((kind, message),) = anna.errors
    assert (kind, anna.frames) == ("PresenceConfigError", [])
    assert "in every run" in message


def test_a_cached_tracker_that_places_no_client_serves_each_visitor_for_themselves(app: MakeApp) -> None:
    anna = app(app_that_caches_the_tracker).run(places_it=False)
    ben = app(app_that_caches_the_tracker).run(places_it=False, user="ben")
    assert anna.client["token"] != ben.client["token"]
