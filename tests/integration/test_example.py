"""`make example`: the app and all that it needs start together, and nothing of it stays."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "examples.streamlit_app.run"]
GONE_S = 20.0


@dataclass(frozen=True, slots=True)
class Example:
    """A running example, and what it printed until it was ready."""

    process: subprocess.Popen[str]
    printed: str

    def address(self, name: str) -> str:
        """The address that it says after a name."""
        found = re.search(rf"^  {name} +(\S+)", self.printed, re.MULTILINE)
        assert found, self.printed
        return found[1]

    @property
    def started(self) -> list[psutil.Process]:
        """Everything that it started."""
        return psutil.Process(self.process.pid).children(recursive=True)


StartExample = Callable[..., Example]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PRESENCE_PORT": "0"}


@pytest.fixture
def start_example(tmp_path: Path) -> Iterator[StartExample]:
    with ExitStack() as stack:

        def start(*arguments: str) -> Example:
            process = stack.enter_context(
                subprocess.Popen(
                    [*COMMAND, *arguments],
                    env=environment(),
                    cwd=tmp_path,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            )
            stack.callback(process.terminate)
            return Example(process, read_welcome(process))

        yield start


def read_welcome(process: subprocess.Popen[str]) -> str:
    """All lines up to the example's own last one; `presence dev` prints a welcome before."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("  Stop") and any(each.startswith("  The app") for each in lines):
            break
    return "".join(lines)


def ends_with_all_of_it(example: Example, number: signal.Signals) -> bool:
    started = example.started
    example.process.send_signal(number)
    return example.process.wait(GONE_S) == 0 and not psutil.wait_procs(started, timeout=0)[1]


def test_it_prints_what_to_open_and_ends_all_of_it_on_ctrl_c(start_example: StartExample) -> None:
    example = start_example()
    for name in ("The app", "Operator"):
        assert "Streamlit" in httpx.get(example.address(name)).text
    assert httpx.get(f"{example.address('Presence')}/readyz").json()["postgres"] == "ok"
    assert len(example.started) >= 4  # the app, the server, Redis, Postgres
    assert ends_with_all_of_it(example, signal.SIGINT)


def test_beside_a_running_server_it_uses_that_one_and_killed_it_leaves_nothing_running(
    start_example: StartExample,
) -> None:
    first, second = start_example(), start_example()
    assert second.address("Presence") == first.address("Presence")
    assert second.address("The app") != first.address("The app")
    assert ends_with_all_of_it(second, signal.SIGTERM)
    started = first.started
    first.process.kill()
    assert not psutil.wait_procs(started, timeout=GONE_S)[1]


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        done = subprocess.run(
            [*COMMAND, "--port", str(port)],
            env=environment(),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (2, f"example: port {port} on 127.0.0.1 is taken\n")
    assert not (tmp_path / ".presence").exists()
