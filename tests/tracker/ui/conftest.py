"""Streamlit apps as AppTest runs them, without a browser, against a node."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Protocol

import pytest
import streamlit as st
from presence_tracker.streamlit_ui import room, watcher
from streamlit.components.v2.bidi_component.main import _make_trigger_id
from streamlit.testing.v1 import AppTest

from presence_tracker import PresenceTracker, get_presence_tracker
from tests.conftest import TEST_API_KEY
from tests.tracker.conftest import StartNode

PATIENCE_S = 60.0
CONFIG = re.compile(r'<script type="application/json" id="config">(.*?)</script>')
Json = dict[str, Any]


class MakeApp(Protocol):
    """An app of a function's body, with these secrets instead of the right ones."""

    def __call__(self, script: Callable[[], None], **secrets: str) -> App: ...


class Other(Protocol):
    """Another visitor, in a program of their own."""

    def __call__(self, user_id: str, session_id: str | None = None) -> PresenceTracker: ...


class App:
    """One visitor's app."""

    def __init__(self, script: Callable[[], None], secrets: dict[str, str]) -> None:
        self.test = AppTest.from_function(script, default_timeout=PATIENCE_S)
        if secrets:
            self.test.secrets["presence"] = secrets

    def run(self, **state: object) -> App:
        """Run it again, as when its visitor did something; `state` goes into its session state before."""
        for name, value in state.items():
            self.test.session_state[name] = value
        self.test.run()
        return self

    def click(self, label: str) -> App:
        """Press the button that says this."""
        next(each for each in self.test.button if each.label == label).click().run()
        return self

    def hear(self, standing: str, reason: str | None = None) -> App:
        """Run it again because the watcher in the browser, which AppTest has not, says so."""
        (watcher,) = [each for each in self._elements("bidi_component") if "watcher" in each.component_name]
        said = {"event": "changed", "value": {"standing": standing, "reason": reason}}
        states = self.test._tree.get_widget_states()
        states.widgets.add(id=_make_trigger_id(watcher.id, "events"), json_trigger_value=json.dumps([said]))
        self.test._run(states)
        return self

    @property
    def standing(self) -> Any:  # noqa: ANN401 - compared only
        """What the watcher is told that Python knows."""
        told = self.component("watcher")
        assert told is not None
        return told["known"]["standing"]

    @property
    def watcher_key(self) -> str:
        """Another one is another watcher, which starts anew."""
        return next(str(each.key) for each in self.test.get("bidi_component") if "watcher" in str(each.key))

    @property
    def buttons(self) -> list[str]:
        """What the buttons say."""
        return [each.label for each in self.test.button]

    @property
    def texts(self) -> list[str]:
        """All that it says, but for buttons and components."""
        kinds = (self.test.title, self.test.subheader, self.test.markdown, self.test.info, self.test.warning)
        return [str(each.value) for kind in kinds for each in kind]

    @property
    def errors(self) -> list[tuple[str, str]]:
        """Which errors it shows, and what they say."""
        return [(each.proto.type.rpartition(".")[2], each.message) for each in self.test.exception]

    @property
    def first(self) -> str:
        """The kind of its first element."""
        return str(self.test.main.children[0].type)

    @property
    def frames(self) -> list[str]:
        """The documents of its iframes."""
        return [str(frame.srcdoc) for frame in self._elements("iframe")]

    @property
    def client(self) -> Json:
        """What the browser client is told: its address and the session."""
        (html,) = self.frames
        found = CONFIG.search(html)
        assert found is not None, html
        return dict(json.loads(found[1]))

    def component(self, name: str) -> Json | None:
        """What a component is told, or None where there is none."""
        told = [
            json.loads(each.json)
            for each in self._elements("bidi_component")
            if each.component_name == f"presence_tracker_{name}"
        ]
        assert len(told) < 2
        return told[0] if told else None

    def _elements(self, kind: str) -> list[Any]:
        return [each.proto for each in self.test.get(kind)]


@pytest.fixture(autouse=True)
def _forget_cached() -> None:
    """Addresses return, the connections of earlier tests do not."""
    st.cache_resource.clear()


@pytest.fixture
def one_place(start_node: StartNode) -> str:
    """A node with one place."""
    return start_node(max_concurrent=1)


@pytest.fixture
def app(one_place: str) -> MakeApp:
    """Make apps whose secrets name the node with one place."""

    def make(script: Callable[[], None], **secrets: str) -> App:
        return App(script, {"url": one_place, "api_key": TEST_API_KEY, **secrets})

    return make


@pytest.fixture
def other(one_place: str) -> Other:
    """Make other visitors."""

    def make(user_id: str, session_id: str | None = None) -> PresenceTracker:
        tracker = get_presence_tracker(url=one_place, api_key=TEST_API_KEY)
        tracker.mark_session_started(user_id, session_id=session_id)
        return tracker

    return make


@pytest.fixture
def old_streamlit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Streamlit of before `st.iframe` and components in the app's own window."""
    monkeypatch.delattr(st, "iframe")
    monkeypatch.delattr(st.components, "v2")


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fragments run as if their time had come; AppTest never lets it."""
    monkeypatch.setattr(room, "is_fragment_rerun", lambda: True)
    monkeypatch.setattr(watcher, "is_fragment_rerun", lambda: True)
