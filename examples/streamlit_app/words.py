"""What this app says, in the participant's language."""

import json
from pathlib import Path

import streamlit as st

LANGUAGES = {
    "en": "English",
    "de": "Deutsch",
    "nl": "Nederlands",
    "tr": "Türkçe",
    "sq": "Shqip",
    "hi": "हिन्दी",
}
_WORDS = json.loads(Path(__file__).with_name("words.json").read_text(encoding="utf-8"))


def word(key: str) -> str:
    """A word or sentence."""
    text: str = _ours()[key]
    return text


def questions() -> list[str]:
    """The questions of the interview."""
    asked: list[str] = _ours()["questions"]
    return asked


def _ours() -> dict:
    state = st.session_state
    return _WORDS[state.get("user_language") or state.get("language") or "en"]
