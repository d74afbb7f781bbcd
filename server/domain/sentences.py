"""What the participant is told about the interview, in the participant's own language."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files

import msgspec

from server.domain.interview import Admission, InterviewState, Reason

Catalogue = Mapping[str, Mapping[str, str]]

FALLBACK_LANGUAGE = "en"
NEXT_IN_LINE = "waiting.next"
IN_LINE = "waiting.place"

NONE_REASONS = (
    Reason.EXPIRED,
    Reason.RELEASED,
    Reason.COMPLETED,
    Reason.KICKED,
    Reason.MAX_LENGTH,
    Reason.TAKEN_OVER,
)
DENIED_REASONS = (Reason.AT_CAPACITY, Reason.LINE_FULL, Reason.CLOSED, Reason.ELSEWHERE, Reason.ENDED)

# Every language's catalogue has exactly these: `state`, or `state.reason`; the line has three ways to say it.
KEYS = (
    InterviewState.NONE.value,
    *(f"none.{reason}" for reason in NONE_REASONS),
    InterviewState.WAITING.value,
    NEXT_IN_LINE,
    IN_LINE,
    InterviewState.OFFERED.value,
    InterviewState.GRANTED.value,
    *(f"denied.{reason}" for reason in DENIED_REASONS),
)

CATALOGUE: Catalogue = msgspec.json.decode(
    files(__package__).joinpath("sentences.json").read_bytes(), type=dict[str, dict[str, str]]
)


class Sentences:
    """The catalogue. `overrides` replaces single sentences, or adds a language, whole or in part."""

    def __init__(self, overrides: Catalogue | None = None) -> None:
        added = {_normal(language): sentences for language, sentences in (overrides or {}).items()}
        self._catalogue: dict[str, dict[str, str]] = {
            language: {**CATALOGUE.get(language, {}), **added.get(language, {})}
            for language in CATALOGUE.keys() | added.keys()
        }

    def for_admission(self, admission: Admission, language_code: str | None) -> str:
        """The sentence for where a session stands; `de-AT` falls back to `de`, and all to English."""
        sentence = self._find(tuple(_keys(admission)), language_code)
        return sentence.replace("{position}", str(admission.position))

    def _find(self, keys: tuple[str, ...], language_code: str | None) -> str:
        for language in _languages(language_code):
            sentences = self._catalogue.get(language, {})
            for key in keys:
                if key in sentences:
                    return sentences[key]
        raise LookupError(f"no sentence for {keys}")


def _keys(admission: Admission) -> Iterator[str]:
    """The most telling key first; the bare state last."""
    if admission.state is InterviewState.WAITING and admission.position is not None:
        yield NEXT_IN_LINE if admission.position == 1 else IN_LINE
    if admission.reason is not None:
        yield f"{admission.state}.{admission.reason}"
    yield admission.state.value


def _languages(language_code: str | None) -> Iterator[str]:
    if language_code:
        language = _normal(language_code)
        yield language
        yield language.partition("-")[0]
    yield FALLBACK_LANGUAGE


def _normal(language_code: str) -> str:
    return language_code.lower().replace("_", "-")
