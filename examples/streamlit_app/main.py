"""An interview app in small: log in, wait for a place, be interviewed, done. `make example` starts it."""

import streamlit as st
from login import log_in
from words import word

from presence_tracker import get_presence_tracker

AT_ONCE = 2  # interviews at the same time; `presence limit 5` changes it while the app runs

st.set_page_config(page_title="Interview", page_icon=":material/forum:")
presence = get_presence_tracker(max_concurrent=AT_ONCE)  # first of all: it keeps this browser tab connected
is_logged_in = "user" in st.session_state

page = st.navigation(
    [
        st.Page("steps/home.py", title=word("home"), icon=":material/home:", default=True),
        st.Page("steps/learning.py", title=word("interview"), icon=":material/forum:"),
        st.Page("steps/finished.py", title=word("finished"), visibility="hidden"),
        st.Page("steps/operator.py", title="Operator", visibility="hidden"),
    ],
    position="top" if is_logged_in else "hidden",
)
page_name = page.url_path or "home"

if page_name != "operator":
    if not is_logged_in:
        log_in(presence, page_name)
    presence.set_page(page_name)
page.run()
