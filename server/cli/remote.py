"""The operators' commands: the HTTP API, with tables for people and JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self
from urllib.parse import quote

import httpx
import typer
from httpx_sse import EventSource
from rich.console import Console
from rich.table import Table
from rich.text import Text

from server.cli.errors import MISUSED, CommandError
from server.cli.running import running_in
from server.settings import DEV_API_KEY, HEADER_SAFE, NOT_HEADER_SAFE

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT_S = 10.0
# The server sends a comment each 15 s, so that a stream in which nothing happens is told from a dead one.
SILENCE_S = 40.0
PIPE_WIDTH = 200
Reply = Mapping[str, Any]


class Remote:
    """A server and the key that opens it. Every failure is a CommandError of one sentence."""

    def __init__(self, url: str, api_key: str, pool: str) -> None:
        self._url, self._pool = url, pool
        self._client = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=TIMEOUT_S
        )

    @classmethod
    def from_environment(cls, pool: str) -> Self:
        """PRESENCE_URL and PRESENCE_API_KEY; without them the development server of this folder, if one runs."""
        url, keys = os.environ.get("PRESENCE_URL"), os.environ.get("PRESENCE_API_KEY", "")
        here = None if url or keys else running_in()
        if here is not None:
            return cls(here.url, DEV_API_KEY, pool)
        key = keys.split(",")[0].strip()
        if not key:
            raise CommandError(
                "PRESENCE_API_KEY is not set: the server's API key is needed", exit_code=MISUSED
            )
        if not HEADER_SAFE.fullmatch(key):
            raise CommandError(f"PRESENCE_API_KEY {NOT_HEADER_SAFE}", exit_code=MISUSED)
        return cls(url or DEFAULT_URL, key, pool)

    def call(
        self, method: str, path: str, *, body: object = None, query: Mapping[str, str] | None = None
    ) -> Reply:
        """Call the API about this pool and return its JSON object."""
        return self._request(method, path, body, {"pool": self._pool, **(query or {})})

    def configure(self, changes: Mapping[str, object]) -> Reply:
        """Change the pool's configuration; returns all of it."""
        return self._request("PUT", f"/v1/pools/{quote(self._pool, safe='')}", changes, {})

    @contextmanager
    def events(self, derived: Sequence[str]) -> Iterator[Iterator[tuple[str, Reply]]]:
        """The pool's live events and the `derived` messages, each with its kind, until the server ends them."""
        query = {"pool": self._pool, "with": ",".join(derived)}
        timeout = httpx.Timeout(TIMEOUT_S, read=SILENCE_S)
        try:
            with (
                self._client as client,
                client.stream("GET", "/v1/events", params=query, timeout=timeout) as response,
            ):
                if response.is_error:
                    response.read()
                    raise CommandError(_complaint(response))
                messages = EventSource(response).iter_sse()
                # One without data only says how far the stream is.
                yield ((each.event, each.json()) for each in messages if each.data)
        except httpx.HTTPError as error:
            raise CommandError(self._unreachable(error)) from None
        except ValueError:
            raise CommandError(f"{self._url} does not answer like a presence server") from None

    def _unreachable(self, error: Exception) -> str:
        reason = str(error) or type(error).__name__
        return f"{self._url} can't be reached ({reason}): is the server running?"

    def _request(self, method: str, path: str, body: object, query: Mapping[str, str]) -> Reply:
        try:
            with self._client as client:
                response = client.request(method, path, json=body, params=query)
        except httpx.UnsupportedProtocol:
            raise CommandError(
                "PRESENCE_URL must start with http:// or https://", exit_code=MISUSED
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CommandError(self._unreachable(error)) from None
        if response.is_error:
            raise CommandError(_complaint(response))
        return _object(response)


def _object(response: httpx.Response) -> Reply:
    try:
        reply = response.json() if response.content else {}
    except ValueError:
        reply = None
    if not isinstance(reply, dict):
        raise CommandError(f"{response.url.copy_with(query=None)} does not answer like a presence server")
    return reply


def _complaint(response: httpx.Response) -> str:
    """The server's own sentence about what is wrong."""
    try:
        problem = response.json()
        sentence = str(problem.get("detail") or problem["title"])
    except (ValueError, KeyError, AttributeError):
        sentence = response.reason_phrase
    return f"{sentence} ({response.status_code})"


def session_path(session_id: str, rest: str = "") -> str:
    """Path of a session; whatever the id holds, it stays one segment."""
    return f"/v1/sessions/{quote(session_id, safe='')}{rest}"


def show(reply: Reply, *, as_json: bool, names: Sequence[str] | None = None) -> None:
    """Print an object: all as JSON, or the named fields as a table."""
    if as_json:
        return print_json(reply)
    table = Table(show_header=False, box=None, pad_edge=False)
    for name in names or reply:
        table.add_row(name, cell(_text(reply.get(name))))
    return Console(soft_wrap=True).print(table)


def show_sessions(reply: Reply, *, as_json: bool) -> None:
    """Print sessions, newest first."""
    if as_json:
        return print_json(reply)
    columns = (
        "session_id",
        "user_id",
        "language_code",
        "current_page",
        "status",
        "online",
        "interview",
        "started_at",
    )
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(
            column, overflow="fold", no_wrap=column == "session_id"
        )  # an id is there to be copied
    for session in reply["sessions"]:
        table.add_row(*(cell(_text(session.get(column))) for column in columns))
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)
    if reply.get("next_cursor"):
        typer.echo(f"More: --cursor {reply['next_cursor']}")
    return None


def print_json(reply: Reply) -> None:
    """Print as JSON, for programs."""
    typer.echo(json.dumps(reply, indent=2, ensure_ascii=False))


def cell(text: str) -> Text:
    """`text` as it is: a page's name may look like markup, or hold what a terminal takes for a command."""
    return Text("".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text))


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        state = str(value.get("state", ""))
        return f"{state} {value['position']}" if "position" in value else state
    return str(value)
