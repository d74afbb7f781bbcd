"""Where the server listens, by what the user and the host say."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from server.cli.errors import CommandError
from server.cli.listening import Place, choose, listen, listen_at, listen_near, url_of
from server.settings import Settings


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, Place("127.0.0.1", 8000, asked=False)),
        ({"PRESENCE_PORT": "9000"}, Place("127.0.0.1", 9000, asked=True)),
        ({"PORT": "5000"}, Place("0.0.0.0", 5000, asked=True)),
        ({"PORT": "5000", "PRESENCE_PORT": "9000"}, Place("0.0.0.0", 9000, asked=True)),
        ({"PORT": "5000", "PRESENCE_HOST": "::1"}, Place("::1", 5000, asked=True)),
        ({"PRESENCE_HOST": "10.0.0.1"}, Place("10.0.0.1", 8000, asked=False)),
        ({"PORT": ""}, Place("127.0.0.1", 8000, asked=False)),
    ],
)
def test_the_place_is_chosen_by_what_is_said_nearest(
    environment: dict[str, str], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert choose(Settings.read()) == place


def test_the_command_line_counts_more_than_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESENCE_PORT", "9000")
    assert choose(Settings.read(port=9100)).port == 9100


@pytest.mark.parametrize("nonsense", ["web", "-1", "65536"])
def test_a_nonsensical_port_of_the_host_is_refused(nonsense: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", nonsense)
    with pytest.raises(CommandError, match="PORT must be"):
        choose(Settings.read())


@pytest.fixture
def taken() -> Iterator[int]:
    with listen("127.0.0.1", 0) as sock:
        yield sock.getsockname()[1]


def test_a_taken_port_that_was_asked_for_is_refused(taken: int) -> None:
    with pytest.raises(CommandError, match=f"port {taken} on 127.0.0.1 is taken") as refusal:
        listen_near(Place("127.0.0.1", taken, asked=True))
    assert refusal.value.exit_code == 2


def test_a_taken_port_that_nobody_asked_for_leads_to_a_later_one(taken: int) -> None:
    with listen_near(Place("127.0.0.1", taken, asked=False)) as sock:
        assert sock.getsockname()[1] > taken


def test_an_address_of_another_machine_is_refused_in_a_sentence() -> None:
    with pytest.raises(CommandError, match=r"port 8000 on 192\.0\.2\.1 can't be used"):
        listen_at(Place("192.0.2.1", 8000, asked=True))


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")])
def test_the_url_shown_can_be_opened(host: str, shown: str) -> None:
    with listen(host, 0) as sock:
        port = sock.getsockname()[1]
        assert url_of(sock) == f"http://{shown}:{port}"
        socket.create_connection((shown, port)).close()
