"""Log lines: one format for all, and no secret in any."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from server import logs


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_field_that_is_named_like_a_secret_is_blanked(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    structlog.get_logger("ours").info("opened", session_id="s1", token="hunter2", api_key="hunter2")
    (line,) = lines(capsys)
    assert line["session_id"] == "s1"
    assert "hunter2" not in line.values()


def test_lines_of_libraries_look_like_ours(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    logging.getLogger("uvicorn.error").warning("something %s", "odd")
    (line,) = lines(capsys)
    assert (line["event"], line["level"], line["logger"]) == ("something odd", "warning", "uvicorn.error")


def test_less_than_the_level_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning", "json")
    structlog.get_logger("ours").info("chatter")
    logging.getLogger("uvicorn.access").info("GET /")
    assert lines(capsys) == []


@pytest.mark.parametrize("style", ["console", "json"])
def test_a_trace_shows_no_values(
    style: Literal["console", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info", style)
    token = "hunter" + "2"
    try:
        raise ValueError(len(token))
    except ValueError:
        structlog.get_logger("ours").exception("failed")
    shown = capsys.readouterr().err
    assert "ValueError: 7" in shown
    assert token not in shown


def test_an_error_is_one_json_line_with_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger("ours").exception("failed")
    (line,) = lines(capsys)
    assert "ValueError: broken" in str(line["exception"])


def test_of_one_kind_so_many_lines_are_written_and_the_next_says_how_many_were_not() -> None:
    now = 0.0
    sampler = logs.Sampler(most=2, within_s=10, clock=lambda: now)

    def passes(kind: str, method: str = "info") -> dict[str, object] | None:
        try:
            return dict(sampler(None, method, {"event": kind}))
        except structlog.DropEvent:
            return None

    assert [passes("granted"), passes("granted")] == [{"event": "granted"}] * 2
    assert [passes("granted"), passes("granted"), passes("granted")] == [None] * 3
    assert passes("released") == {"event": "released"}
    assert passes("granted", "error") == {"event": "granted"}
    now = 10.0
    assert passes("granted") == {"event": "granted", "left_out": 3}
    assert passes("granted") == {"event": "granted"}


def test_the_sampler_stands_in_front_of_our_own_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("info", "json")
    for number in range(logs.MOST_OF_A_KIND + 50):
        structlog.get_logger("ours").info("flood", number=number)
    structlog.get_logger("ours").error("flood")
    written = lines(capsys)
    assert len(written) == logs.MOST_OF_A_KIND + 1
    assert written[-1]["level"] == "error"
