"""Where participants begin."""

import streamlit as st
from words import word

st.title(word("hello").format(name=st.session_state["user"]))
st.write(word("about"))
agrees = st.checkbox(word("consent"))
if st.button(word("start"), type="primary", disabled=not agrees):
    st.switch_page("steps/learning.py")
