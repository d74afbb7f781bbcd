"""The wheel: everything that runs is in it, nothing else, and it works in an empty environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.conftest import TEST_API_KEY, TEST_SECRET

ROOT = Path(__file__).parents[2]
BUILD_S, INSTALL_S, START_S = 60, 100, 30
DATA_SUFFIXES = {".lua", ".sql", ".json", ".html", ".css", ".js", ".svg", ".typed"}
CLIENT_FILES = {"client_js/client.js", "client_js/client.d.ts"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=BUILD_S)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and what it needs, nothing else; the folder of its commands."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=True)
    command = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*command, "-c", str(ROOT / "constraints.txt"), str(wheel)],
        check=True,
        capture_output=True,
        timeout=INSTALL_S,
        cwd=folder,
    )
    return folder / "bin"


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
