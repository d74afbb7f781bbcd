"""For the research team, at /operator: how full it is, who is here, and how the day went."""

import hmac
import os

import streamlit as st
from day import Day, chart_of, look_back

from presence_tracker import PresenceUnavailable, get_presence_tracker

HISTORY = {
    "down": "Postgres is away: only those who are here now are shown, the history comes back with it.",
    "off": "This server has no DATABASE_URL: it remembers nobody who has left.",
}
COLUMNS = {
    "user_id": "Participant",
    "language_code": "Language",
    "current_page": "Page",
    "online": st.column_config.CheckboxColumn("Here"),
    "standing": "Interview",
    "status": "Session",
    "started_at": st.column_config.DatetimeColumn("Since", format="HH:mm"),
}


def ask_password() -> None:
    """Stop this run until the password is given."""
    given = st.text_input("Operator password", type="password")
    wanted = os.environ.get("OPERATOR_PASSWORD", "")  # on Community Cloud: a top-level secret
    if not wanted or not hmac.compare_digest(given.encode(), wanted.encode()):
        st.stop()
    st.session_state["is_operator"] = True
    st.rerun()


@st.fragment(run_every=5)
def show_day() -> None:
    """Sessions and the plot; drawn anew every five seconds."""
    try:
        day = look_back(hours=24)
    except PresenceUnavailable as error:
        st.warning(str(error), icon=":material/cloud_off:")
        return
    if day.history in HISTORY:
        st.info(HISTORY[day.history], icon=":material/database_off:")
    show_sessions(day)
    st.subheader("Interviews running, last 24 hours")
    st.altair_chart(chart_of(day))
    st.caption("Dashed: the limit.")


def show_sessions(day: Day) -> None:
    """Those of the last hours, newest first."""
    st.subheader("Sessions")
    rows = [{**each, "standing": each["interview"]["state"]} for each in day.sessions]
    st.dataframe(rows, column_config=COLUMNS, column_order=list(COLUMNS), hide_index=True)


st.title("Operator")
if not st.session_state.get("is_operator"):
    ask_password()
get_presence_tracker().capacity_box(run_every=5)
show_day()
