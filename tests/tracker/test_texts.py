"""The package's own texts."""

from __future__ import annotations

from string import Formatter

import pytest
from presence_tracker.texts import Texts, own_texts

LANGUAGES = ("en", "de", "nl", "tr", "sq", "hi")


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_there_are_six_languages() -> None:
    assert set(own_texts()) == set(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_all_texts_with_all_placeholders(language: str) -> None:
    english, texts = own_texts()["en"], own_texts()[language]
    assert list(texts) == list(english)
    for key, text in texts.items():
        assert text.strip() == text != ""
        assert placeholders(text) == placeholders(english[key]), key
        assert language == "en" or text != english[key] or key == "capacity_online", key


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("de", "Warteraum"),
        ("de_AT", "Warteraum"),
        ("DE", "Warteraum"),
        ("fr", "Waiting room"),
        (None, "Waiting room"),
    ],
)
def test_a_language_falls_back_to_its_parent_and_to_english(code: str | None, text: str) -> None:
    assert Texts().find("title", code) == text


def test_an_app_may_say_it_in_its_own_words() -> None:
    texts = Texts({"de": {"title": "Gleich geht es los"}, "fr": {"position": "Rang {position}"}})
    assert texts.find("title", "de-CH") == "Gleich geht es los"
    assert texts.find("position", "fr", position=2) == "Rang 2"
    assert texts.find("title", "fr") == "Waiting room"


def test_an_unknown_text_is_an_error() -> None:
    with pytest.raises(LookupError, match="colour"):
        Texts().find("colour")
