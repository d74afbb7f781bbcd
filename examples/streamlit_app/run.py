"""`make example`: the presence server on embedded Redis and Postgres, and this app beside it; both end together."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import httpx

from server.cli.dev import running_in
from server.cli.errors import FAILED, CommandError
from server.cli.listening import LOOPBACK, Place, listen_near
from server.embedded.child import Identity
from server.settings import DEV_API_KEY

APP = Path(__file__).with_name("main.py")
DEFAULT_PORT = 8501
OPERATOR_PASSWORD = "operator"
START_S, POLL_S = 60.0, 0.1
# The server takes leave of its pages and flushes; Streamlit has nothing to lose, and may not end by itself.
SERVER_STOPS_S, APP_STOPS_S = 30.0, 5.0

Found = TypeVar("Found")


def main() -> int:
    """Run until Ctrl-C, SIGTERM, or the end of one of the two."""
    # SIGINT too: who starts us in the background of a script may have had it ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):
            _run(_asked_port())
    except CommandError as error:
        sys.stderr.write("".join(f"example: {sentence}\n" for sentence in error.sentences))
        return error.exit_code
    return 0


def _asked_port() -> int | None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--port", type=int, help=f"port of the app; else {DEFAULT_PORT}, or the next free one"
    )
    port: int | None = parser.parse_args().port
    return port


def _run(asked_port: int | None) -> None:
    port = _free_port(asked_port)
    with ExitStack() as stack:
        presence_url = _presence_server(stack)
        app = stack.enter_context(_process(_app_command(port), _app_environment(presence_url), APP_STOPS_S))
        _wait(app, lambda: _answers(f"http://{LOOPBACK}:{port}/_stcore/health"), "the app")
        print(_welcome(f"http://{LOOPBACK}:{port}", presence_url), flush=True)
        app.wait()
        raise CommandError("the app has ended", exit_code=FAILED)


def _free_port(asked: int | None) -> int:
    """The port that was asked for, or one near the usual one."""
    place = Place(LOOPBACK, DEFAULT_PORT if asked is None else asked, asked=asked is not None)
    with listen_near(place) as sock:
        port: int = sock.getsockname()[1]
        return port


def _presence_server(stack: ExitStack) -> str:
    """Where the presence server of this folder is; started unless `make run` has done so."""
    running = running_in()
    if running is not None:
        return running.url
    # `make example PORT=…` puts PORT into our environment too, and means the app's.
    environment = {name: value for name, value in os.environ.items() if name != "PORT"}
    command = [sys.executable, "-m", "server.cli", "dev"]
    server = stack.enter_context(_process(command, environment, SERVER_STOPS_S))
    return _wait(server, _url_once_ready, "the presence server")


def _url_once_ready() -> str | None:
    running = running_in()
    return running.url if running and _answers(f"{running.url}/readyz") else None


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1).is_success
    except httpx.TransportError:
        return False


def _app_command(port: int) -> list[str]:
    options = {
        "server.port": str(port),
        "server.address": LOOPBACK,
        "server.headless": "true",
        "browser.gatherUsageStats": "false",
    }
    told = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [sys.executable, "-m", "streamlit", "run", str(APP), *told]


def _app_environment(presence_url: str) -> dict[str, str]:
    ours = {
        "PRESENCE_URL": presence_url,
        "PRESENCE_API_KEY": DEV_API_KEY,
        "OPERATOR_PASSWORD": OPERATOR_PASSWORD,
    }
    return {**os.environ, **ours}


@contextmanager
def _process(
    command: Sequence[str], environment: dict[str, str], stops_s: float
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs in this block, and dies with us. In a session of its own, so that Ctrl-C reaches us alone."""
    wrapped = Identity.ours().wrap(command, signal.SIGTERM)
    with subprocess.Popen(wrapped, env=environment, start_new_session=True) as process:
        try:
            yield process
        finally:
            _end(process, stops_s)


def _end(process: subprocess.Popen[bytes], stops_s: float) -> None:
    process.terminate()
    try:
        process.wait(stops_s)
    except subprocess.TimeoutExpired:
        process.kill()


def _wait(process: subprocess.Popen[bytes], look: Callable[[], Found | None], what: str) -> Found:
    deadline = time.monotonic() + START_S
    while not (found := look()):
        if process.poll() is not None:
            raise CommandError(f"{what} did not start")
        if time.monotonic() > deadline:
            raise CommandError(f"{what} was not ready within {START_S:g} s")
        time.sleep(POLL_S)
    return found


def _welcome(url: str, presence_url: str) -> str:
    lines = [
        "",
        f"  The app    {url}             (open it in three tabs: two get in, the third waits)",
        f"  Operator   {url}/operator    (password: {OPERATOR_PASSWORD})",
        f"  Presence   {presence_url}",
        "  Stop       Ctrl-C",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
