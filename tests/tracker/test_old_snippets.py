"""An app written for the old tracker: the calls of its documentation, unchanged, with nothing but the secrets set."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from tests.conftest import TEST_API_KEY, SpawnedServer, SpawnServer

TITLED = re.compile(r"^### (.*?)\n+```python\n(.*?)```", re.MULTILINE | re.DOTALL)
SNIPPETS = dict(TITLED.findall(Path(__file__).with_name("old_snippets.md").read_text(encoding="utf-8")))
LIMIT_OF_3 = SNIPPETS["Step 3: Configure Concurrent Limit"]
LIMIT_OF_5 = SNIPPETS["Adjusting Concurrent Limit"]
IMPORTS = "import streamlit as st\nfrom presence_tracker import get_presence_tracker\n"
LOGIN = 'presence.mark_session_started(user_id=st.query_params["user"], language_code="en", current_page="home")\n'
LEARNING = 'st.success("learning")\nif st.button("Finish"):\n    presence.mark_session_completed()\n'
APP_S = 30


@pytest.fixture
def server(spawn_server: SpawnServer) -> SpawnedServer:
    return spawn_server()


@pytest.fixture(autouse=True)
def fresh_caches() -> Iterator[None]:
    """Every app starts in a process of its own, so to speak."""
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


def script(limit: str) -> str:
    return "".join((IMPORTS, limit, LOGIN, SNIPPETS["Capacity Enforcement"], LEARNING))


def visit(server: SpawnedServer, user: str, *, limit: str = LIMIT_OF_3) -> AppTest:
    app = AppTest.from_string(script(limit), default_timeout=APP_S)
    app.secrets["presence"] = {"url": server.url, "api_key": TEST_API_KEY}
    app.query_params["user"] = user
    return app.run()


def console(server: SpawnedServer, folder: Path, program: str) -> str:
    """What a script beside the app prints; it finds the app's secrets."""
    (folder / ".streamlit").mkdir(exist_ok=True)
    secrets = f'[presence]\nurl = "{server.url}"\napi_key = "{TEST_API_KEY}"\n'
    (folder / ".streamlit" / "secrets.toml").write_text(secrets, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_limit_of_the_old_app_holds_and_the_next_comes_in(server: SpawnedServer) -> None:
    apps = [visit(server, user) for user in ("anna", "ben", "cleo", "dirk")]
    assert [len(app.exception) for app in apps] == [0, 0, 0, 0]
    assert [bool(app.success) for app in apps] == [True, True, True, False]
    assert "next in line" in apps[3].error[0].value
    apps[0].button[0].click().run()
    assert apps[3].run().success
    assert apps[0].run().error[0].value.startswith("The interview is complete.")


def test_the_old_apps_limit_is_raised_where_it_was(server: SpawnedServer) -> None:
    for user in ("anna", "ben", "cleo"):
        visit(server, user)
    assert visit(server, "dirk").error
    assert visit(server, "dirk", limit=LIMIT_OF_5).success


def test_the_old_console_snippets_print_the_servers_numbers(server: SpawnedServer, tmp_path: Path) -> None:
    visit(server, "anna")
    monitor = SNIPPETS["Step 5: Monitor Active Sessions"]
    assert console(server, tmp_path, monitor) == "Active sessions: 1\nActive interviews: 1\n"
    cleanup = SNIPPETS["Cleanup Stale Sessions"]
    assert console(server, tmp_path, cleanup) == "Cleaned up 0 stale sessions\n"
    check = SNIPPETS["Users not being blocked at capacity"]
    assert console(server, tmp_path, IMPORTS + LIMIT_OF_3 + check) == "Active interviews: 1\nMax allowed: 3\n"


def test_dev_mode_is_switched_on_as_before(server: SpawnedServer, caplog: pytest.LogCaptureFixture) -> None:
    app = AppTest.from_string(
        'import streamlit as st\nst.session_state["dev_mode"] = True\n' + script(LIMIT_OF_3),
        default_timeout=APP_S,
    )
    app.secrets["presence"] = {"url": server.url, "api_key": TEST_API_KEY}
    app.query_params["user"] = "anna"
    with caplog.at_level("INFO", "presence_tracker"):
        assert app.run().success
    assert "POST /v1/sessions: 201 Created" in caplog.text
