"""The wheels: everything that runs is in them, nothing else, and they work in empty environments."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.conftest import TEST_API_KEY, TEST_SECRET, SpawnServer
from tests.environments import build_wheel, check, environment

ROOT = Path(__file__).parents[2]
START_S = 60
DATA_SUFFIXES = {".lua", ".sql", ".json", ".html", ".css", ".js", ".svg", ".typed"}
CLIENT_FILES = {"client_js/client.js", "client_js/client.d.ts"}
# What an app does with the tracker, and what must not have come along.
USE = """
from importlib.util import find_spec
from presence_tracker import get_presence_tracker
presence = get_presence_tracker(max_concurrent=3)
presence.mark_session_started(user_id="anna", language_code="de", current_page="home")
print(presence.can_start_interview()[0], [name for name in {absent!r} if find_spec(name)])
"""
APP = """
import streamlit as st
from presence_tracker import get_presence_tracker
presence = get_presence_tracker(max_concurrent=3)
presence.mark_session_started(user_id="anna", language_code="de")
presence.require_interview()
st.write("in")
"""
RUN_APP = f"""
from streamlit.testing.v1 import AppTest
app = AppTest.from_string({APP!r}, default_timeout=60).run()
print([each.value for each in app.exception], [each.value for each in app.markdown])
"""
OURS = ("server", "persistence", "client_js")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def tracker_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT / "presence_tracker", tmp_path_factory.mktemp("tracker-wheel"))


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    return names_in(wheel)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and what it needs, nothing else; the folder of its commands."""
    return environment(tmp_path_factory.mktemp("empty"), wheel)


def presence(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command where the project's own folders are out of sight."""
    environment = {"PATH": f"{installed}:{os.defpath}", "HOME": str(installed)}
    return subprocess.run(
        [str(installed / "presence"), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=START_S,
        cwd=installed,
        env=environment,
    )


def test_scripts_statements_and_pages_are_in_the_wheel(contents: set[str]) -> None:
    expected = {
        str(path.relative_to(ROOT))
        for package in ("server", "persistence")
        for path in (ROOT / package).rglob("*")
        if path.suffix in DATA_SUFFIXES
    }
    assert any(name.endswith(".lua") for name in expected)
    assert any(name.endswith(".sql") for name in expected)
    assert expected <= contents


def test_the_browser_client_is_in_the_wheel_without_its_tests_and_tools(contents: set[str]) -> None:
    client = {name for name in contents if name.startswith("client_js/")}
    assert client >= CLIENT_FILES
    assert not [name for name in client if "test" in name or "node_modules" in name or "package" in name]


def test_nothing_but_the_product_is_in_the_wheel(contents: set[str]) -> None:
    folders = {name.split("/")[0] for name in contents if ".dist-info/" not in name}
    assert folders == {"server", "persistence", "client_js"}


def test_the_installed_command_explains_itself(installed: Path) -> None:
    done = presence(installed, "--help")
    assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout


def test_the_installed_command_refuses_to_serve_without_settings(installed: Path) -> None:
    done = presence(installed, "serve")
    assert done.returncode == 2
    assert [line.split()[1] for line in done.stderr.splitlines()] == [
        "REDIS_URL",
        "PRESENCE_SECRET",
        "PRESENCE_API_KEY",
    ]


def test_the_installed_command_serves_with_its_scripts_and_the_client(
    installed: Path, redis_url: str
) -> None:
    settings = {
        "REDIS_URL": redis_url,
        "PRESENCE_SECRET": TEST_SECRET,
        "PRESENCE_API_KEY": TEST_API_KEY,
        "PRESENCE_PORT": "0",
        "PRESENCE_LOG_FORMAT": "json",
    }
    command = [str(installed / "presence"), "serve"]
    with subprocess.Popen(command, cwd=installed, env=settings, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            events = (json.loads(line) for line in process.stderr)
            url = next(event["url"] for event in events if event["event"] == "listening")
            assert any(event["event"] == "serving" for event in events)
            headers = {"Authorization": f"Bearer {TEST_API_KEY}"}
            opened = httpx.post(f"{url}/v1/sessions", json={"user_id": "anna"}, headers=headers)
            assert opened.status_code == 201, opened.text
            assert "export const connect" in httpx.get(f"{url}/client.js").text
        finally:
            process.terminate()


def test_the_installed_command_prints_the_whole_database(installed: Path) -> None:
    done = presence(installed, "migrate", "--print")
    assert done.returncode == 0, done.stderr
    assert "create table" in done.stdout.lower()


def test_without_the_embedded_servers_development_says_how_to_get_them(installed: Path) -> None:
    done = presence(installed, "dev", "--port", "0")
    assert done.returncode == 1
    assert "pip install 'interview-presence[embedded]'" in done.stderr
    assert "Traceback" not in done.stderr


def python(commands: Path, program: str, **environment: str) -> str:
    """What a program prints there, where the project's own folders are out of sight."""
    done = subprocess.run(
        [str(commands / "python"), "-I", "-c", program],
        check=False,
        capture_output=True,
        text=True,
        timeout=START_S,
        cwd=commands,
        env={"PATH": os.defpath, "HOME": str(commands), **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class TestTracker:
    def test_all_that_runs_is_in_its_wheel_and_nothing_else(self, tracker_wheel: Path) -> None:
        source = ROOT / "presence_tracker" / "src"
        files = {path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        assert {path.suffix for path in files} >= {".py", ".js", ".css", ".html", ".json", ".typed"}
        packed = {name for name in names_in(tracker_wheel) if ".dist-info/" not in name}
        assert packed == {str(path.relative_to(source)) for path in files}

    def test_alone_it_works_with_httpx_without_streamlit_and_the_server(
        self, tracker_wheel: Path, tmp_path: Path, spawn_server: SpawnServer
    ) -> None:
        alone = environment(tmp_path / "alone", tracker_wheel)
        told = {"PRESENCE_URL": spawn_server().url, "PRESENCE_API_KEY": TEST_API_KEY}
        assert check(alone) == ""
        absent = (*OURS, "streamlit", "redis", "asyncpg", "msgspec", "starlette")
        assert python(alone, USE.format(absent=absent), **told) == "True []"

    def test_with_streamlit_and_nothing_else_it_works_in_an_app(
        self, tracker_wheel: Path, tmp_path: Path, spawn_server: SpawnServer
    ) -> None:
        app = environment(tmp_path / "app", tracker_wheel, beside=["streamlit"])
        told = {"PRESENCE_URL": spawn_server().url, "PRESENCE_API_KEY": TEST_API_KEY}
        assert check(app) == ""
        assert python(app, RUN_APP, **told) == "[] ['in']"
        assert python(app, USE.format(absent=OURS), **told) == "True []"

    def test_both_wheels_install_side_by_side(self, wheel: Path, tracker_wheel: Path, tmp_path: Path) -> None:
        both = environment(tmp_path / "both", wheel, tracker_wheel)
        assert check(both) == ""
        program = "import server.app, persistence, client_js, presence_tracker as p; print(p.__file__)"
        assert "site-packages" in python(both, program)
        assert presence(both, "--help").returncode == 0
