"""How the example's operator page looks back: as far as asked, whatever the server has, or says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from presence_tracker import PresenceUnavailable

FILE = Path(__file__).parents[2] / "examples" / "streamlit_app" / "day.py"
Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def day() -> ModuleType:
    spec = spec_from_file_location("example_day", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answer_with(monkeypatch: pytest.MonkeyPatch, day: ModuleType, answer: Answer) -> None:
    http = httpx.Client(base_url="http://presence.test", transport=httpx.MockTransport(answer))
    monkeypatch.setattr(day, "_http", lambda: http)


def server_with(hours_ago: list[list[int]], asked: list[str]) -> Answer:
    """A server whose pages hold sessions that began so many hours ago."""
    now = datetime.now(UTC)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/readyz":
            return httpx.Response(200, json={"postgres": "ok"})
        if request.url.path == "/v1/capacity":
            return httpx.Response(200, json={"limit": 2})
        at = int(request.url.params.get("cursor", "0"))
        asked.append(str(at))
        rows = [{"started_at": (now - timedelta(hours=hours)).isoformat()} for hours in hours_ago[at]]
        following = str(at + 1) if at + 1 < len(hours_ago) else None
        return httpx.Response(200, json={"sessions": rows, "next_cursor": following})

    return answer


@pytest.mark.parametrize(
    ("hours_ago", "found", "pages"),
    [
        ([[1, 2], [3, 30], [40, 50], [60]], 3, 2),
        ([[30, 40], [50, 60], [70]], 0, 1),
        ([[1, 2], [3]], 3, 2),
        ([[]], 0, 1),
    ],
    ids=["in the second page", "nobody today", "all today", "nobody ever"],
)
def test_it_asks_for_no_page_beyond_the_hours_it_shows(
    monkeypatch: pytest.MonkeyPatch, day: ModuleType, hours_ago: list[list[int]], found: int, pages: int
) -> None:
    asked: list[str] = []
    answer_with(monkeypatch, day, server_with(hours_ago, asked))
    assert (len(day.look_back(hours=24).sessions), len(asked)) == (found, pages)


@pytest.mark.parametrize("status", [200, 502])
def test_a_proxy_that_answers_for_the_server_is_a_server_that_is_away(
    monkeypatch: pytest.MonkeyPatch, day: ModuleType, status: int
) -> None:
    answer_with(monkeypatch, day, lambda _: httpx.Response(status, text="<h1>Back soon</h1>"))
    with pytest.raises(PresenceUnavailable):
        day.look_back(hours=24)
