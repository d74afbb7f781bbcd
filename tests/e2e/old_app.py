"""An app written for the old tracker: its calls are those of the old documentation, and none of ours."""

# mypy: disable-error-code="truthy-bool"

import streamlit as st

from presence_tracker import get_presence_tracker

# Initialize presence tracker with your desired limit
presence = get_presence_tracker(max_concurrent=2)

if "user" not in st.session_state:
    name = st.text_input("Username")
    if st.button("Log in") and name:
        st.session_state["user"] = name
        presence.mark_session_started(user_id=name, language_code="en", current_page="home")
        st.rerun()
    st.stop()

if st.session_state.get("page") != "learning":
    st.write("Home")
    if st.button("Learn"):
        st.session_state["page"] = "learning"
        st.rerun()
    st.stop()

if presence:
    can_start, message = presence.can_start_interview()

    if not can_start:
        st.error(message)  # "Platform at capacity..."
        st.stop()  # Block access

st.write("Learning")
if st.button("Finish"):
    presence.mark_session_completed()
