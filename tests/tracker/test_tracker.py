"""What an app calls, against a real node: everything works."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from presence_tracker import Interview, NoSessionError, PresenceRequestError
from tests.tracker.conftest import MakeTracker, StartNode
from tests.tracker.servers import Operator, wait_until


def test_a_session_is_opened_with_all_that_is_said_of_it(tracker: MakeTracker, operator: Operator) -> None:
    presence = tracker()
    session_id = presence.mark_session_started(
        user_id="anna", language_code="de", current_page="home", metadata={"wave": 2}
    )
    assert session_id == presence.session_id
    row = operator.session(session_id)
    assert (row["user_id"], row["language_code"], row["current_page"]) == ("anna", "de", "home")
    assert (row["metadata"], row["status"], row["online"]) == ({"wave": 2}, "active", True)


def test_starting_again_in_every_run_asks_nothing_and_changes_only_what_is_new(
    tracker: MakeTracker, operator: Operator
) -> None:
    presence = tracker()
    first = presence.mark_session_started("anna", "de", "home")
    token = presence.identity.token if presence.identity else None
    assert presence.mark_session_started("anna", "nl", "learning") == first
    row = operator.session(first)
    assert (row["current_page"], row["language_code"]) == ("learning", "nl")
    assert presence.identity is not None
    assert presence.identity.token == token
    assert len(operator.sessions()) == 1


def test_another_user_gets_another_session(tracker: MakeTracker) -> None:
    presence = tracker()
    assert presence.mark_session_started("anna") != presence.mark_session_started("ben")


def test_the_session_of_a_user_who_comes_back_is_resumed(tracker: MakeTracker) -> None:
    before = tracker()
    before.mark_session_started("anna")
    assert before.can_start_interview()[0]
    after = tracker()
    assert after.mark_session_started("anna") == before.session_id
    assert after.can_start_interview()[0]
    assert after.count_active_interviews() == 1


def test_the_app_may_choose_the_id(tracker: MakeTracker) -> None:
    assert tracker().mark_session_started(user_id="anna", session_id="s-1") == "s-1"
    with pytest.raises(PresenceRequestError, match="another user"):
        tracker().mark_session_started(user_id="ben", session_id="s-1")


@pytest.mark.parametrize("name", ["Anna Müller", "日本", "_x", "a" * 200, "anna@example.org", "a/b?c"])
def test_every_name_is_good_enough_for_a_user(tracker: MakeTracker, operator: Operator, name: str) -> None:
    presence = tracker()
    session_id = presence.mark_session_started(name, language_code="German!", current_page="a\nb" * 100)
    assert tracker().mark_session_started(name) == session_id
    assert tracker().mark_session_started(f"{name}2") != session_id
    assert operator.session(session_id)["current_page"].startswith("a b")


def test_two_trackers_get_no_more_places_than_there_are(tracker: MakeTracker) -> None:
    first, second = tracker(max_concurrent=1), tracker(max_concurrent=1)
    first.mark_session_started("anna")
    second.mark_session_started("ben")
    assert first.can_start_interview()[0]
    can_start, message = second.can_start_interview()
    assert not can_start
    assert "next in line" in message
    first.mark_session_completed()
    assert second.can_start_interview()[0]


def test_places_are_given_once_when_many_ask_at_the_same_time(tracker: MakeTracker) -> None:
    trackers = [tracker(max_concurrent=2) for _ in range(8)]
    for number, presence in enumerate(trackers):
        presence.mark_session_started(f"user-{number}")
    together = threading.Barrier(len(trackers))

    def ask(number: int) -> bool:
        together.wait()
        return trackers[number].can_start_interview()[0]

    with ThreadPoolExecutor(len(trackers)) as threads:
        assert sum(threads.map(ask, range(len(trackers)))) == 2
    assert trackers[0].count_active_interviews() == 2


def test_two_threads_may_use_one_tracker(tracker: MakeTracker) -> None:
    presence = tracker()
    presence.mark_session_started("anna")
    together = threading.Barrier(4)

    def ask(number: int) -> tuple[bool, str]:
        together.wait()
        presence.set_page(f"page-{number}")
        return presence.can_start_interview()

    with ThreadPoolExecutor(4) as threads:
        assert {answer[0] for answer in threads.map(ask, range(4))} == {True}
    assert presence.count_active_interviews() == 1


def test_the_sentence_is_in_the_participants_language(tracker: MakeTracker) -> None:
    tracker(max_concurrent=0)
    presence = tracker()
    presence.mark_session_started("anna", language_code="de")
    can_start, message = presence.can_start_interview()
    assert not can_start
    assert message.startswith("Sie sind als Nächstes an der Reihe.")


def test_counts_and_capacity_are_the_servers(tracker: MakeTracker) -> None:
    presence, other = tracker(max_concurrent=1), tracker()
    presence.mark_session_started("anna")
    other.mark_session_started("ben")
    presence.can_start_interview()
    other.can_start_interview()
    assert (presence.count_active_sessions(), presence.count_active_interviews()) == (2, 1)
    capacity = presence.capacity()
    assert (capacity.limit, capacity.available, capacity.waiting) == (1, 0, 1)
    assert (presence.max_concurrent, presence.online_window_seconds) == (1, 60)


def test_pages_travel_when_they_change(tracker: MakeTracker, operator: Operator) -> None:
    presence = tracker()
    presence.set_page("nobody is here yet")
    session_id = presence.mark_session_started("anna", current_page="home")
    version = operator.session(session_id)["version"]
    presence.set_page("home")
    assert operator.session(session_id)["version"] == version
    presence.set_page("learning")
    assert operator.session(session_id)["current_page"] == "learning"


def test_claiming_looking_and_leaving(tracker: MakeTracker) -> None:
    presence = tracker(max_concurrent=1)
    presence.mark_session_started("anna")
    assert presence.interview().state == "none"
    assert presence.claim().is_granted
    assert presence.interview().is_granted
    assert presence.leave().reason == "released"
    assert presence.count_active_interviews() == 0


def test_who_left_does_not_come_in_merely_because_the_app_runs_again(tracker: MakeTracker) -> None:
    presence = tracker()
    presence.mark_session_started("anna")
    assert presence.can_start_interview()[0]
    presence.leave()
    assert not presence.can_start_interview()[0]
    assert presence.count_active_interviews() == 0
    assert presence.claim().is_granted
    assert presence.can_start_interview()[0]


def test_who_logs_in_again_after_leaving_may_come_in(tracker: MakeTracker) -> None:
    before = tracker()
    before.mark_session_started("anna")
    before.claim()
    before.leave()
    after = tracker()
    after.mark_session_started("anna")
    assert after.can_start_interview()[0]


def test_a_completed_session_stays_so_and_frees_its_place(tracker: MakeTracker, operator: Operator) -> None:
    presence, other = tracker(max_concurrent=1), tracker()
    other.mark_session_completed()  # of nobody: nothing happens
    presence.mark_session_started("anna")
    other.mark_session_started("ben")
    assert presence.can_start_interview()[0]
    other.can_start_interview()
    presence.mark_session_completed()
    presence.mark_session_completed()
    assert other.can_start_interview()[0]
    presence.mark_session_started("anna")
    can_start, message = presence.can_start_interview()
    assert not can_start
    assert message.startswith("The interview is complete.")
    assert [row["user_id"] for row in operator.sessions()] == ["ben"]


def test_after_forgetting_the_same_user_starts_anew(tracker: MakeTracker) -> None:
    presence = tracker()
    first = presence.mark_session_started("anna")
    presence.mark_session_completed()
    presence.forget()
    assert presence.session_id is None
    assert presence.mark_session_started("anna") != first
    assert presence.can_start_interview()[0]


@pytest.mark.parametrize("had_a_place", [True, False])
def test_who_was_thrown_out_stays_out(tracker: MakeTracker, operator: Operator, *, had_a_place: bool) -> None:
    presence = tracker()
    presence.mark_session_started("anna")
    if had_a_place:
        presence.claim()
    operator.kick(presence.session_id)
    for _ in range(2):
        presence.mark_session_started("anna", current_page="learning")
        can_start, message = presence.can_start_interview()
        assert not can_start
        assert message.startswith("The study team has ended this session.")
    presence.mark_session_completed()
    assert presence.interview().reason == "kicked"
    assert operator.sessions() == []


def test_a_session_that_the_server_lost_is_opened_anew(
    tracker: MakeTracker, operator: Operator, redis_url: str
) -> None:
    presence = tracker()
    lost = presence.mark_session_started("anna", current_page="home")
    with Redis.from_url(redis_url) as redis:
        redis.flushall()
    presence.set_page("learning")
    assert presence.can_start_interview()[0]
    assert presence.session_id != lost
    assert operator.session(presence.session_id)["current_page"] == "learning"


def test_an_abandoned_session_is_opened_anew(
    tracker: MakeTracker, operator: Operator, start_node: StartNode
) -> None:
    quick = start_node(heartbeat_s=0.2, online_window_s=0.5, abandon_after_s=0.1, permit_grace_max_s=20)
    presence = tracker(url=quick, pool="quick")  # made with the settings of this node
    first = presence.mark_session_started("anna")
    wait_until(lambda: presence.capacity().sessions_active == 0)
    operator.ask("PUT", "/v1/pools/quick", {"abandon_after_s": 10_800, "online_window_s": 60})
    assert presence.can_start_interview()[0]
    assert presence.session_id != first


def test_a_take_over_brings_the_place_of_the_other_window(tracker: MakeTracker) -> None:
    here, there = tracker(), tracker()
    there.mark_session_started("anna", session_id="there")
    assert there.can_start_interview()[0]
    here.mark_session_started("anna", session_id="here")
    interview = here.claim(takeover=True)
    assert interview.is_granted
    can_start, message = there.can_start_interview()
    assert not can_start
    assert "another window" in message


def test_who_is_elsewhere_is_told_so(tracker: MakeTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("presence_tracker.visit.RELOAD_PATIENCE_S", 0.3)
    here, there = tracker(), tracker()
    there.mark_session_started("anna", session_id="there")
    there.can_start_interview()
    here.mark_session_started("anna", session_id="here")
    assert here.claim().reason == "elsewhere"
    can_start, message = here.can_start_interview()
    assert not can_start
    assert message.startswith("You already have a place in another window")


def test_a_place_elsewhere_is_waited_for_a_moment_after_a_reload(
    tracker: MakeTracker, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("presence_tracker.visit.RELOAD_PATIENCE_S", 20)
    here, there = tracker(), tracker()
    there.mark_session_started("anna", session_id="there")
    there.can_start_interview()
    here.mark_session_started("anna", session_id="here")
    leaving = threading.Timer(0.6, operator.ask, ("DELETE", "/v1/sessions/there/interview"))
    leaving.start()
    assert here.can_start_interview()[0]
    leaving.join()


def test_an_offer_is_not_taken_for_a_page_that_nobody_looks_at(
    tracker: MakeTracker, operator: Operator
) -> None:
    presence = tracker(max_concurrent=0)
    presence.mark_session_started("anna")
    assert presence.can_start_interview()[0] is False
    assert presence.identity is not None
    page = {"Authorization": f"Bearer {presence.identity.token}"}
    beat = {"tab": "t1", "visible": False}
    path = f"/v1/sessions/{presence.session_id}/heartbeat"
    first = operator.http.post(path, json=beat, headers=page).json()
    operator.configure(limit=1)
    assert presence.can_start_interview()[0] is False
    assert presence.interview().state == "offered"
    seen = {**beat, "visible": True, "connection_id": first["connection_id"]}
    operator.http.post(path, json=seen, headers=page)
    assert presence.can_start_interview()[0]


def test_whoever_was_turned_away_gets_no_place_while_nobody_looks_at_the_page(
    tracker: MakeTracker, operator: Operator
) -> None:
    presence = tracker()
    presence.mark_session_started("anna")
    operator.configure(mode="closed")
    turned_away = presence.can_start_interview()
    assert not turned_away[0]
    operator.configure(mode="open")
    assert presence.identity is not None
    page = {"Authorization": f"Bearer {presence.identity.token}"}
    beat = {"tab": "t1", "visible": False}
    path = f"/v1/sessions/{presence.session_id}/heartbeat"
    first = operator.http.post(path, json=beat, headers=page).json()
    assert presence.can_start_interview() == turned_away
    assert presence.count_active_interviews() == 0
    seen = {**beat, "visible": True, "connection_id": first["connection_id"]}
    operator.http.post(path, json=seen, headers=page)
    assert presence.can_start_interview()[0]


def test_no_token_is_shown_with_what_is_known_of_a_session(tracker: MakeTracker) -> None:
    presence = tracker()
    presence.mark_session_started("anna")
    identity = presence.identity
    assert identity is not None
    assert identity.token
    assert identity.token not in repr(identity)
    opened = presence.api.open_session("ben")
    assert opened.token not in repr(opened)


def test_a_token_can_be_renewed(tracker: MakeTracker) -> None:
    presence = tracker()
    presence.mark_session_started("anna")
    assert presence.renew_token()
    assert presence.identity is not None
    assert presence.api.interview(presence.session_id or "") == Interview(
        "none", presence.interview().message
    )


def test_stale_sessions_are_cleaned_up(tracker: MakeTracker) -> None:
    presence = tracker()
    presence.mark_session_started("anna")
    assert presence.cleanup_stale_sessions(hours=3) == 0
    assert presence.cleanup_stale_sessions() == 0


def test_a_pool_that_nobody_has_used_is_empty(tracker: MakeTracker) -> None:
    presence = tracker(pool="second-study")
    assert presence.count_active_sessions() == 0
    assert presence.max_concurrent == 3
    assert tracker(pool="third-study").cleanup_stale_sessions() == 0


def test_pools_are_apart(tracker: MakeTracker) -> None:
    first, second = tracker(max_concurrent=1), tracker(max_concurrent=1, pool="second-study")
    for presence in (first, second):
        presence.mark_session_started("anna")
        assert presence.can_start_interview()[0]


def test_a_call_about_nobody_says_what_is_missing(tracker: MakeTracker) -> None:
    for call in (tracker().can_start_interview, tracker().claim, tracker().interview, tracker().leave):
        with pytest.raises(NoSessionError, match="mark_session_started"):
            call()


def test_where_browsers_get_the_client_from(tracker: MakeTracker, node_url: str) -> None:
    presence = tracker()
    assert presence.client_url == f"{node_url}/client.js"
    presence.mark_session_started("anna")
    assert presence.client_url == f"{node_url}/client.js"
