"""What `presence top` draws of a pool."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from server.cli.top.drawing import draw, length
from server.cli.top.view import View

NOW = 1_800_000_000.0
BEFORE = "2027-01-15T07:58:00Z"  # two minutes earlier
CAPACITY = {
    "pool": "main", "mode": "open", "limit": 3, "active": 2, "available": 0, "offered": 1, "waiting": 40,
    "sessions_online": 43, "sessions_active": 50, "eta_s": 754.0, "eta_max_s": 900.0, "recovering": False,
}  # fmt: skip


def waiter(number: int, **more: object) -> dict[str, Any]:
    return {
        "session_id": f"s{number}", "user_id": f"waiter-{number}", "state": "waiting", "position": number,
        "ready": True, "since": BEFORE, "eta_s": 60.0 * number, "eta_max_s": None, **more,
    }  # fmt: skip


def full_view() -> View:
    view = View("main")
    view.take("capacity", CAPACITY)
    holders = [
        {"session_id": "s1", "user_id": "anna", "since": BEFORE},
        {"session_id": "s2", "user_id": "bert", "since": BEFORE},
    ]
    line = [waiter(1, state="offered", ready=False, eta_s=None), waiter(2, ready=False)]
    line += [waiter(number) for number in range(3, 41)]
    view.take("line", {"pool": "main", "waiting": 39, "offered": 1, "sessions": line, "interviews": holders})
    for seq in range(300):
        view.take("granted", {"type": "granted", "seq": seq, "at": BEFORE, "user_id": f"user-{seq}"})
    return view


def drawn(view: View, *, width: int = 100, height: int = 40) -> list[str]:
    console = Console(width=width, height=height, color_system=None)
    with console.capture() as capture:
        console.print(draw(view, now=NOW, height=height))
    return capture.get().splitlines()


def test_it_is_consistent_when_names_and_counts_are_of_the_same_moment() -> None:
    view = View("main")
    line = {"pool": "main", "waiting": 0, "offered": 0, "sessions": [], "interviews": []}
    view.take("line", line)
    assert not view.is_consistent
    view.take("capacity", {**CAPACITY, "active": 1, "offered": 0, "waiting": 0})
    assert (view.is_complete, view.is_consistent) == (True, False)
    anna = {"session_id": "s1", "user_id": "anna", "since": BEFORE}
    view.take("line", {**line, "interviews": [anna]})
    assert view.is_consistent


def test_since_when_somebody_waits_may_not_be_known() -> None:
    view = View("main")
    view.take("capacity", CAPACITY)
    view.take(
        "line",
        {"pool": "main", "waiting": 1, "offered": 0, "sessions": [waiter(1, since=None)], "interviews": []},
    )
    assert "waiter-1" in "\n".join(drawn(view))


def test_it_shows_who_is_in_who_waits_and_what_happened() -> None:
    text = "\n".join(drawn(full_view()))
    assert "2 of 3 in interview" in text
    assert "1 offered   40 waiting   0 free   43 online   50 sessions   a newcomer waits 12:34" in text
    assert "In interview (2)" in text
    assert "anna" in text
    assert "2:00" in text
    assert "In line (40)" in text
    assert "waiter-3" in text
    assert "user-299" in text


def test_who_is_away_or_has_an_offer_is_marked() -> None:
    lines = drawn(full_view())
    (away,) = [line for line in lines if "waiter-2 " in line]
    assert "away" in away
    (offered,) = [line for line in lines if "waiter-1 " in line]
    assert "offered" in offered


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 16), (200, 60)])
def test_it_is_no_higher_and_no_wider_than_the_terminal(width: int, height: int) -> None:
    lines = drawn(full_view(), width=width, height=height)
    assert len(lines) <= height
    assert max(len(line) for line in lines) <= width


def test_before_anything_is_known_it_says_so() -> None:
    assert "connecting" in drawn(View("main"))[0]


def test_trouble_is_said_until_the_server_speaks_again() -> None:
    view = full_view()
    view.trouble = "trying again: it can't be reached"
    assert "can't be reached" in drawn(view)[0]
    view.take("capacity", CAPACITY)
    assert "can't be reached" not in drawn(view)[0]


def test_what_was_missed_is_not_shown_as_if_nothing_was_missed() -> None:
    view = full_view()
    view.take("reset", {"reason": "trimmed"})
    assert not view.events


def test_lengths_are_told_in_minutes_then_in_hours() -> None:
    assert [length(each) for each in (-1, 0, 59.6, 1267, 11_100)] == [
        "0:00",
        "0:00",
        "1:00",
        "21:07",
        "3 h 05",
    ]
