"""The interview. Who has no place yet sees the waiting room, and gets in by itself."""

import streamlit as st
from answers import answers_of
from words import questions, word

from presence_tracker import get_presence_tracker

presence = get_presence_tracker()
presence.require_interview()  # whoever gets further than this line holds one of the places

asked, given = questions(), answers_of(st.session_state["user"])
st.progress(len(given) / len(asked))
for question, answered in zip(asked, given, strict=False):
    st.chat_message("assistant").write(question)
    st.chat_message("user").write(answered)
is_over = len(given) == len(asked)
st.chat_message("assistant").write(word("that_was_all") if is_over else asked[len(given)])
# In a container, not pinned to the bottom: Streamlit builds the page anew around a pinned one, which costs a reconnect.
if not is_over and (answer := st.container().chat_input(word("answer"))):
    given.append(answer)
    st.rerun()
if st.button(word("finish"), type="primary" if is_over else "secondary"):
    st.session_state["is_done"] = True
    st.switch_page("steps/finished.py")
