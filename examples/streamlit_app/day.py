"""The last hours as the presence server tells them: sessions, and how many interviews ran at once."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import altair as alt
import httpx
import streamlit as st
from presence_tracker.config import find_config

from presence_tracker import PresenceUnavailable

TIMEOUT_S = 3
PAGE = 500


@dataclass(frozen=True)
class Day:
    """The sessions since `begin`, newest first. `history` is Postgres: `ok`, `down` or `off`."""

    begin: datetime
    limit: int
    sessions: list[dict]
    history: str


def look_back(hours: int) -> Day:
    """Ask the server. Raises PresenceUnavailable if it is away."""
    begin = datetime.now(UTC) - timedelta(hours=hours)
    try:
        history = _ask("/readyz", fails=False).get("postgres", "down")
        sessions = _sessions(begin, {"status": "active"} if history == "down" else {})
        return Day(begin, _ask("/v1/capacity")["limit"], sessions, history)
    except (httpx.HTTPError, ValueError) as error:  # a proxy in front answers with a page, not JSON
        raise PresenceUnavailable("The presence server does not answer.") from error


def running_at_once(sessions: list[dict]) -> list[dict]:
    """How many were in the interview, from each moment on at which somebody came or left.

    Whoever goes on in another window has two sessions of one interview: they count once.
    """
    inside: Counter[str] = Counter()
    counts = {}
    for at, change, user in sorted(_changes(sessions)):
        inside[user] += change
        if not inside[user]:
            del inside[user]
        counts[at] = len(inside)
    counts[datetime.now(UTC)] = len(inside)
    return [{"time": at.isoformat(), "interviews": count} for at, count in counts.items()]


def _changes(sessions: list[dict]) -> Iterator[tuple[datetime, int, str]]:
    for session in sessions:
        for moment, change in (("interview_started_at", 1), ("interview_ended_at", -1)):
            if session[moment]:
                yield datetime.fromisoformat(session[moment]), change, session["user_id"]


def chart_of(day: Day) -> alt.LayerChart:
    """The plot: an area of steps, and the limit as a dashed line."""
    points = running_at_once(day.sessions)
    top = max(day.limit, *(point["interviews"] for point in points), 1) + 1
    y = alt.Y("interviews:Q", title=None, stack=None, scale=alt.Scale(domain=[0, top])).axis(
        tickMinStep=1, format="d"
    )
    steps = alt.Chart(alt.Data(values=points)).mark_area(interpolate="step-after", line=True, opacity=0.4)
    limit = alt.Chart(alt.Data(values=[{"limit": day.limit}])).mark_rule(strokeDash=[6, 4], color="#d33")
    time = alt.X("time:T", title=None).axis(format="%H:%M", labelOverlap=True)
    return alt.layer(steps.encode(x=time, y=y), limit.encode(y="limit:Q")).properties(height=220)


def _sessions(begin: datetime, query: dict[str, str]) -> list[dict]:
    found: list[dict] = []
    cursor = {}
    while True:
        page = _ask("/v1/sessions", limit=PAGE, **query, **cursor)
        recent = [each for each in page["sessions"] if datetime.fromisoformat(each["started_at"]) >= begin]
        found += recent
        is_far_enough = len(recent) < len(page["sessions"])  # newest first
        if is_far_enough or page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


def _ask(path: str, *, fails: bool = True, **query: object) -> dict:
    answer = _http().get(path, params=query)
    return answer.raise_for_status().json() if fails else answer.json()


@st.cache_resource
def _http() -> httpx.Client:
    config = find_config()
    headers = {"Authorization": f"Bearer {config.api_key}"}
    return httpx.Client(base_url=config.url, headers=headers, timeout=TIMEOUT_S)
