"""The participants' sentences: complete in every language, and found by fallback."""

from __future__ import annotations

import pytest

from server.domain.interview import Admission, InterviewState, Reason
from server.domain.sentences import CATALOGUE, DENIED_REASONS, KEYS, NONE_REASONS, Sentences

LANGUAGES = {"en", "de", "nl", "tr", "sq", "hi"}


def waiting(position: int | None) -> Admission:
    return Admission(InterviewState.WAITING, position=position)


def test_the_catalogue_speaks_the_six_languages() -> None:
    assert set(CATALOGUE) == LANGUAGES


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_every_language_has_a_sentence_of_its_own_for_everything(language: str) -> None:
    sentences = CATALOGUE[language]
    assert tuple(sentences) == KEYS
    assert len(set(sentences.values())) == len(KEYS)
    assert all(sentence == sentence.strip() and sentence[-1] in ".!।" for sentence in sentences.values())


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_only_a_place_in_line_has_a_number_to_fill_in(language: str) -> None:
    with_braces = {key for key, sentence in CATALOGUE[language].items() if "{" in sentence}
    assert with_braces == {"waiting.place"}
    assert "{position}" in CATALOGUE[language]["waiting.place"]


def test_no_two_languages_share_a_sentence() -> None:
    everything = [sentence for sentences in CATALOGUE.values() for sentence in sentences.values()]
    assert len(set(everything)) == len(everything)


def test_every_reason_belongs_to_exactly_one_state() -> None:
    assert sorted(NONE_REASONS + DENIED_REASONS) == sorted(Reason)


def test_the_position_is_filled_in() -> None:
    assert "number 12 in line" in Sentences().for_admission(waiting(12), "en")
    assert "Platz 2 der" in Sentences().for_admission(waiting(2), "de")


def test_the_first_in_line_is_told_so_and_an_unknown_position_is_not_made_up() -> None:
    assert "next in line" in Sentences().for_admission(waiting(1), None)
    assert "None" not in Sentences().for_admission(waiting(None), None)


def test_at_capacity_is_said_as_the_old_platform_said_it() -> None:
    refused = Admission(InterviewState.DENIED, Reason.AT_CAPACITY)
    assert Sentences().for_admission(refused, "en").startswith("Platform at capacity")


@pytest.mark.parametrize("code", ["de", "DE", "de-AT", "de_CH"])
def test_a_regional_language_falls_back_to_its_language(code: str) -> None:
    granted = Admission(InterviewState.GRANTED, fence=1)
    assert Sentences().for_admission(granted, code) == CATALOGUE["de"]["granted"]


@pytest.mark.parametrize("code", [None, "", "fr", "xx-YY"])
def test_an_unknown_language_falls_back_to_english(code: str | None) -> None:
    granted = Admission(InterviewState.GRANTED, fence=1)
    assert Sentences().for_admission(granted, code) == CATALOGUE["en"]["granted"]


def test_a_sentence_can_be_replaced_and_a_language_added_in_part() -> None:
    sentences = Sentences({"en": {"granted": "In you go."}, "fr": {"granted": "Entrez !"}})
    granted = Admission(InterviewState.GRANTED, fence=1)
    assert sentences.for_admission(granted, "en") == "In you go."
    assert sentences.for_admission(granted, "fr-CA") == "Entrez !"
    assert sentences.for_admission(waiting(1), "fr") == CATALOGUE["en"]["waiting.next"]
    assert sentences.for_admission(granted, "de") == CATALOGUE["de"]["granted"]
