"""Who are you? A real app asks for a password or an invitation here."""

import streamlit as st
from words import LANGUAGES, word

from presence_tracker import PresenceTracker


def log_in(presence: PresenceTracker, page_name: str) -> None:
    """Ask for name and language, and stop this run until they are given."""
    st.title(word("welcome"))
    st.selectbox(word("language"), LANGUAGES, format_func=LANGUAGES.get, key="language")
    with st.form("login", border=False):
        name = st.text_input(word("name"), max_chars=60).strip()
        is_sent = st.form_submit_button(word("log_in"), type="primary")
    if is_sent and name:
        _remember(presence, name, page_name)
        st.rerun()
    st.stop()


def _remember(presence: PresenceTracker, name: str, page_name: str) -> None:
    """Streamlit forgets a widget's value once the widget is gone: keep name and language as values of our own."""
    st.session_state["user"] = name
    st.session_state["user_language"] = st.session_state["language"]
    presence.mark_session_started(
        user_id=name, language_code=st.session_state["language"], current_page=page_name
    )
