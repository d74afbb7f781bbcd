"""The snippets of docs/streamlit.md, run as they are written."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from presence_tracker import PresenceApi
from tests.conftest import TEST_API_KEY, SpawnedServer, SpawnServer

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "streamlit.md").read_text(encoding="utf-8")
AROUND = """
import streamlit as st
from presence_tracker import PresenceUnavailable, get_presence_tracker
presence = get_presence_tracker()
"""
PATIENCE_S = 30.0


def blocks(language: str) -> list[str]:
    """The code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL)


@pytest.fixture
def server(spawn_server: SpawnServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[SpawnedServer]:
    """A server; the apps' connections to it are closed in the end."""
    made: list[PresenceApi] = []
    really_made = PresenceApi.__init__

    def make(self: PresenceApi, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        really_made(self, *arguments, **options)
        made.append(self)

    monkeypatch.setattr(PresenceApi, "__init__", make)
    st.cache_resource.clear()  # addresses return, the connections of earlier tests do not
    yield spawn_server()
    for api in made:
        api.close()


def run(snippet: str, server: SpawnedServer) -> AppTest:
    """A visitor's first run of an app that begins so."""
    app = AppTest.from_string(AROUND + snippet, default_timeout=PATIENCE_S)
    app.secrets["presence"] = {"url": server.url, "api_key": TEST_API_KEY}
    return app.run()


def test_every_snippet_runs_without_an_error(server: SpawnedServer) -> None:
    snippets = blocks("python")
    assert len(snippets) >= 10
    for snippet in snippets:
        app = run(snippet, server)
        assert [each.value for each in app.exception] == [], snippet
        assert [each.value for each in app.error] == [], snippet


def test_the_interview_begins_where_the_snippet_says(server: SpawnedServer) -> None:
    (snippet,) = [each for each in blocks("python") if "require_interview" in each]
    assert "Welcome to the interview." in [each.value for each in run(snippet, server).markdown]


def test_the_secrets_are_those_that_the_package_reads() -> None:
    before, after = (tomllib.loads(block) for block in blocks("toml"))
    assert set(before) == {"supabase"}
    assert {section: set(values) for section, values in after.items()} == {"presence": {"url", "api_key"}}


def test_the_requirement_names_the_folder_of_the_small_distribution() -> None:
    (line,) = blocks("text")
    found = re.fullmatch(r"(\S+) @ git\+https://.+#subdirectory=(\S+)\n", line)
    assert found is not None
    about = (ROOT / found[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert tomllib.loads(about)["project"]["name"] == found[1]


def test_every_linked_file_exists() -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", DOC):
        assert (ROOT / "docs" / link).exists(), link
