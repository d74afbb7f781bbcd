"""A server that is away, slow or wrong: the app goes on, and nobody comes in who was not in."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest
from presence_tracker.calls import AWAY_PAUSE_S

from presence_tracker import (
    Interview,
    PresenceApi,
    PresenceConfigError,
    PresenceRequestError,
    PresenceTracker,
    PresenceUnavailable,
    SessionGoneError,
    get_presence_tracker,
)
from tests.conftest import TEST_API_KEY
from tests.tracker.conftest import MakeTracker
from tests.tracker.servers import Operator, Switch, answering, nobody_there, silence, switched

KEY = "a-key-that-nobody-may-ever-see-0123456789"


@pytest.fixture
def relay(node_url: str) -> Iterator[tuple[str, Switch]]:
    """A way to the node that can be cut."""
    with switched(node_url) as made:
        yield made


def api_of(url: str, **options: float) -> PresenceApi:
    return PresenceApi(url, KEY, timeout_s=options.pop("timeout_s", 2.5))


def away_tracker(url: str, **options: object) -> PresenceTracker:
    return get_presence_tracker(url=url, api_key=KEY, **options)  # type: ignore[arg-type]


# What becomes of an app


def test_nobody_comes_in_while_the_server_is_away() -> None:
    presence = away_tracker(nobody_there(), max_concurrent=3)
    assert presence.mark_session_started("anna", language_code="de") == ""
    presence.set_page("learning")
    can_start, message = presence.can_start_interview()
    assert not can_start
    assert message.startswith("Die Plattform kann im Moment nicht prüfen")
    presence.mark_session_completed()
    assert not presence.can_start_interview()[0]


@pytest.mark.parametrize(
    "call", ["count_active_sessions", "count_active_interviews", "capacity", "cleanup_stale_sessions"]
)
def test_what_only_the_server_knows_is_not_made_up(call: str) -> None:
    with pytest.raises(PresenceUnavailable):
        getattr(away_tracker(nobody_there()), call)()


def test_an_app_may_choose_to_let_everybody_in_meanwhile() -> None:
    presence = away_tracker(nobody_there(), fail_open=True)
    presence.mark_session_started("anna")
    assert presence.can_start_interview() == (True, "")
    standing = presence.standing()
    assert standing.may_enter
    assert not standing.is_confirmed


def test_who_was_in_goes_on_and_who_was_not_stays_out(
    tracker: MakeTracker, relay: tuple[str, Switch]
) -> None:
    url, switch = relay
    holder, waiter = tracker(max_concurrent=1, url=url), tracker(url=url)
    holder.mark_session_started("anna")
    waiter.mark_session_started("ben")
    assert holder.can_start_interview()[0]
    assert not waiter.can_start_interview()[0]
    switch.is_on = False
    assert holder.can_start_interview()[0]
    assert not holder.standing().is_confirmed
    assert not waiter.can_start_interview()[0]
    switch.is_on = True
    assert holder.standing().is_confirmed
    assert waiter.interview().position == 1


def test_what_happened_meanwhile_is_told_when_the_server_is_back(
    tracker: MakeTracker, relay: tuple[str, Switch], operator: Operator
) -> None:
    url, switch = relay
    switch.is_on = False
    presence = tracker(max_concurrent=7, url=url)
    presence.mark_session_started("anna", current_page="home")
    presence.set_page("learning")
    assert not presence.catch_up()
    switch.is_on = True
    assert presence.catch_up()
    row = operator.session(presence.session_id)
    assert (row["user_id"], row["current_page"]) == ("anna", "learning")
    assert presence.max_concurrent == 3
    tracker(max_concurrent=7, url=url)
    assert presence.max_concurrent == 7


def test_an_end_that_the_server_could_not_be_told_counts_when_it_is_back(
    tracker: MakeTracker, relay: tuple[str, Switch]
) -> None:
    url, switch = relay
    presence = tracker(url=url)
    presence.mark_session_started("anna")
    assert presence.can_start_interview()[0]
    switch.is_on = False
    presence.mark_session_completed()
    can_start, message = presence.can_start_interview()
    assert not can_start
    assert message.startswith("This session has ended.")
    switch.is_on = True
    assert presence.catch_up()
    assert presence.interview().reason == "completed"
    assert presence.count_active_interviews() == 0


def test_the_token_stays_the_old_one_while_there_is_no_new_one(
    tracker: MakeTracker, relay: tuple[str, Switch]
) -> None:
    url, switch = relay
    presence = tracker(url=url)
    presence.mark_session_started("anna")
    before = presence.identity
    switch.is_on = False
    assert not presence.renew_token()
    assert presence.identity == before


# Time-outs and repetitions


def test_a_server_that_never_answers_holds_an_app_up_once() -> None:
    with silence() as url:
        api = api_of(url, timeout_s=0.2)
        began = time.monotonic()
        with pytest.raises(PresenceUnavailable, match="in time"):
            api.capacity()
        waited = time.monotonic() - began
        assert waited >= 0.4
        for _ in range(5):
            with pytest.raises(PresenceUnavailable, match="a moment ago"):
                api.interview("s-1")
        assert time.monotonic() - began < waited + AWAY_PAUSE_S


def test_after_a_time_out_the_server_is_asked_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("presence_tracker.calls.AWAY_PAUSE_S", 0.0)
    with silence() as url:
        api = api_of(url, timeout_s=0.05)
        for _ in range(2):
            with pytest.raises(PresenceUnavailable, match="in time"):
                api.capacity()


CALLS = {
    "open_session": ("anna",),
    "session": ("s-1",),
    "set_page": ("s-1", "home"),
    "new_token": ("s-1",),
    "claim": ("s-1",),
    "interview": ("s-1",),
    "release": ("s-1",),
    "complete": ("s-1",),
    "capacity": (),
    "pool_config": (),
    "declare_limit": (3,),
}


@pytest.mark.parametrize("status", [502, 503, 504])
@pytest.mark.parametrize("call", CALLS)
def test_what_may_be_repeated_is_tried_twice(call: str, status: int) -> None:
    with answering((status, "away")) as server:
        with pytest.raises(PresenceUnavailable):
            getattr(api_of(server.url), call)(*CALLS[call])
        assert len(server.asked) == 2
        assert len(set(server.asked)) == 1


def test_cleaning_up_is_never_repeated() -> None:
    with answering((503, {"detail": "Redis is away.", "code": "redis_away"})) as server:
        with pytest.raises(PresenceUnavailable, match="Redis is away"):
            api_of(server.url).cleanup(3)
        assert server.asked == ["POST /v1/cleanup"]


def test_a_second_try_that_succeeds_is_an_answer_like_any_other() -> None:
    with answering((503, "away"), (200, {"state": "granted", "message": "Welcome", "fence": 1})) as server:
        assert api_of(server.url).claim("s-1") == Interview("granted", "Welcome", fence=1)


def test_what_the_server_refuses_is_not_repeated() -> None:
    with answering((422, {"detail": "In the body: no.", "code": "invalid"})) as server:
        with pytest.raises(PresenceRequestError, match=r"In the body: no \(422\)") as raised:
            api_of(server.url).open_session("")
        assert (raised.value.status, raised.value.code) == (422, "invalid")
        assert len(server.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 520])
def test_any_trouble_of_the_server_counts_as_away(status: int) -> None:
    with answering((status, "oops")) as server, pytest.raises(PresenceUnavailable):
        api_of(server.url).capacity()


@pytest.mark.parametrize(
    ("status", "code", "has_ended"),
    [(404, "unknown_session", False), (404, "unknown_pool", False), (410, "session_ended", True)],
)
def test_a_session_that_is_gone_is_told_from_other_refusals(
    status: int, code: str, *, has_ended: bool
) -> None:
    with answering((status, {"detail": "Gone.", "code": code})) as server:
        with pytest.raises(SessionGoneError) as raised:
            api_of(server.url).claim("s-1")
        assert raised.value.has_ended is has_ended


def test_a_conflict_that_is_no_interview_is_an_error() -> None:
    problem = {"detail": "Stale.", "code": "stale_fence"}
    with answering((409, problem)) as server, pytest.raises(PresenceRequestError, match="Stale"):
        api_of(server.url).claim("s-1")


def test_what_a_newer_server_says_besides_is_ignored() -> None:
    with answering((409, {"state": "denied", "message": "Full", "colour": "red"})) as server:
        assert api_of(server.url).claim("s-1") == Interview("denied", "Full")


# The wrong key, the wrong server


def test_a_wrong_key_is_one_clear_sentence_without_the_key(node_url: str) -> None:
    with pytest.raises(PresenceConfigError) as raised:
        get_presence_tracker(max_concurrent=3, url=node_url, api_key=KEY)
    said = str(raised.value)
    assert said.count(". ") == 0
    assert f"{node_url} refuses the API key" in said
    assert "PRESENCE_API_KEY" in said
    assert KEY not in said


@pytest.mark.parametrize(
    ("status", "body"), [(404, "<html>"), (200, "<html>"), (404, {"code": "not_found"}), (405, "")]
)
def test_another_server_is_one_clear_sentence(status: int, body: object) -> None:
    with answering((status, body)) as server:
        with pytest.raises(PresenceConfigError, match="does not answer like a presence server") as raised:
            away_tracker(server.url).capacity()
        assert "`url`" in str(raised.value)
        assert "/v1" not in str(raised.value)


def test_a_redirect_names_where_to() -> None:
    there = [("Location", "https://presence.example.org/v1/capacity")]
    where = pytest.raises(PresenceConfigError, match=r"https://presence\.example\.org")
    with answering((301, ""), headers=there) as server, where:
        away_tracker(server.url).capacity()


# What is logged


@pytest.mark.parametrize("dev_mode", [True, False])
def test_dev_mode_logs_each_call_and_no_secret(
    tracker: MakeTracker, caplog: pytest.LogCaptureFixture, *, dev_mode: bool
) -> None:
    with caplog.at_level(logging.INFO, "presence_tracker"):
        presence = tracker(dev_mode=dev_mode)
        presence.mark_session_started("anna")
        presence.can_start_interview()
    lines = [record.getMessage() for record in caplog.records if record.name == "presence_tracker"]
    assert presence.identity is not None
    if dev_mode:
        assert lines[0].startswith("POST /v1/sessions: 201 Created, ")
        assert len(lines) == 2
    else:
        assert lines == []
    everything = f"{caplog.text} {presence!r} {presence.api!r}"
    assert TEST_API_KEY not in everything
    assert str(presence.identity.token) not in everything


def test_what_went_wrong_is_in_the_log_too(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "presence_tracker"):
        away_tracker(nobody_there(), max_concurrent=3, dev_mode=True)
    assert "PUT /v1/pools/main: ConnectError" in caplog.text
    assert "The limit of 3 could not be declared" in caplog.text


def test_an_answer_that_cannot_be_unpacked_is_none() -> None:
    with answering((200, "no gzip"), headers=[("Content-Encoding", "gzip")]) as server:
        presence = get_presence_tracker(url=server.url, api_key=TEST_API_KEY)
        assert presence.mark_session_started("anna") == ""
        with pytest.raises(PresenceUnavailable):
            presence.capacity()
