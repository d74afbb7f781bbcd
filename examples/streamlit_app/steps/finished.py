"""The end: the place goes to the next in line at this moment."""

import streamlit as st
from words import word

from presence_tracker import get_presence_tracker

if not st.session_state.get("is_done"):
    st.switch_page("steps/home.py")
get_presence_tracker().mark_session_completed()

st.title(word("finished"))
st.success(word("thanks"), icon=":material/check_circle:")
if st.button(word("log_out")):
    st.session_state.clear()
    st.switch_page("steps/home.py")
