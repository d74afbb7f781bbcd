"""Rows that Postgres refuses, made writable with as little loss as can be."""

from __future__ import annotations

import json

import pytest

from persistence.repair import repairs
from persistence.rows import PresenceRow


def row(user_id: str = "anna", metadata: str | None = None, current_page: str | None = None) -> PresenceRow:
    return PresenceRow(
        "s", user_id, "main", "active", 1, 1, 1, False, current_page=current_page, metadata=metadata
    )


def test_a_sound_row_is_first_tried_unchanged() -> None:
    sound = row(metadata='{"a": "ä"}', current_page="home")
    assert next(repairs(sound)) == sound


def test_text_loses_only_what_no_text_can_hold() -> None:
    repaired = next(repairs(row(user_id="a\x00b", current_page="c\ud800d")))
    assert (repaired.user_id, repaired.current_page) == ("a\ufffdb", "c?d")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (r'{"a": "x\u0000y"}', {"a": "x\ufffdy"}),
        (r'{"a": "\\u0000"}', {"a": r"\u0000"}),
        (r'{"a": "\\\u0000"}', {"a": "\\\ufffd"}),
        (r'{"\u0000": ["\ud800"]}', {"\ufffd": ["?"]}),
    ],
)
def test_metadata_keeps_everything_else(given: str, kept: object) -> None:
    repaired = next(repairs(row(metadata=given)))
    assert repaired.metadata is not None
    assert json.loads(repaired.metadata) == kept


@pytest.mark.parametrize("broken", ["{", "[" * 100_000])
def test_metadata_that_is_no_json_is_given_up(broken: str) -> None:
    assert [each.metadata for each in repairs(row(metadata=broken))] == [None]


def test_the_last_resort_is_a_row_without_metadata() -> None:
    assert [each.metadata for each in repairs(row(metadata='{"a": 1e999}'))][-1] is None
