"""What each participant has answered. A real app keeps this in its database."""

import streamlit as st


def answers_of(user: str) -> list[str]:
    """This participant's answers: outside `st.session_state`, which a reload of the page would empty."""
    return _all().setdefault(user, [])


@st.cache_resource
def _all() -> dict[str, list[str]]:
    return {}
