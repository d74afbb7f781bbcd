"""Where the address and the key come from, and what is said when they are missing or wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from presence_tracker.config import Config, find_config
from streamlit.runtime.secrets import Secrets

from presence_tracker import PresenceConfigError

URL, KEY = "https://presence.example.org", "k-0123456789abcdefghijklmn"
SECRET = "s-0123456789abcdefghijklmn"


FILES = "secrets.files"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A folder without secrets."""
    monkeypatch.setattr(st, "secrets", Secrets())
    before = st.config.get_option(FILES)
    st.config.set_option(FILES, [str(tmp_path / "secrets.toml")])
    yield
    st.config.set_option(FILES, before)
    os.environ.pop("presence", None)  # Streamlit puts what stands in no section there


def secrets(text: str) -> None:
    Path(st.config.get_option(FILES)[0]).write_text(text, encoding="utf-8")


def complaint(**given: str) -> str:
    with pytest.raises(PresenceConfigError) as raised:
        find_config(**given)
    said = str(raised.value)
    assert said.endswith(".")
    assert ". " not in said.replace("(on Community Cloud", "")
    return said


def test_streamlits_secrets_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESENCE_URL", "http://elsewhere")
    monkeypatch.setenv("PRESENCE_API_KEY", "e-0123456789abcdefghijklmn")
    secrets(
        f'[presence]\nurl = "{URL}/"\napi_key = "{SECRET}"\npool = "lab"\npublic_url = "https://p.example.org"'
    )
    config = find_config()
    assert config == Config(URL, SECRET, "lab", "https://p.example.org")
    assert config.client_url == "https://p.example.org/client.js"


def test_the_call_comes_before_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESENCE_POOL", "env")
    secrets(f'[presence]\nurl = "http://elsewhere"\napi_key = "{SECRET}"')
    assert find_config(url=URL, api_key=KEY) == Config(URL, KEY, "env")


def test_the_environment_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESENCE_URL", URL)
    monkeypatch.setenv("PRESENCE_API_KEY", f"{KEY},another-key")
    config = find_config()
    assert config == Config(URL, KEY)
    assert config.client_url == f"{URL}/client.js"


def test_secrets_and_environment_complete_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESENCE_API_KEY", KEY)
    secrets(f'[presence]\nurl = "{URL}"')
    assert find_config() == Config(URL, KEY)


def test_a_configuration_shows_no_key() -> None:
    assert KEY not in repr(Config(URL, KEY))


def test_nothing_set_names_all_that_is_missing() -> None:
    said = complaint()
    for part in ("`url`", "`api_key`", "[presence]", "secrets.toml", "PRESENCE_URL", "PRESENCE_API_KEY"):
        assert part in said


@pytest.mark.parametrize(("given", "missing"), [({"url": URL}, "`api_key`"), ({"api_key": KEY}, "`url`")])
def test_one_missing_value_is_named(given: dict[str, str], missing: str) -> None:
    said = complaint(**given)
    assert missing in said
    assert KEY not in said


def test_the_old_trackers_secrets_are_told_from_ours() -> None:
    secrets(f'[supabase]\nurl = "https://x.supabase.co"\nanon_key = "{SECRET}"\nservice_key = "{SECRET}"')
    said = complaint()
    assert said.startswith("The [supabase] secrets are those of the old tracker: set `url`")
    assert SECRET not in said


def test_both_secrets_side_by_side_are_no_trouble() -> None:
    secrets(f'[supabase]\nurl = "https://x.supabase.co"\n[presence]\nurl = "{URL}"\napi_key = "{SECRET}"')
    assert find_config() == Config(URL, SECRET)


def test_a_presence_that_is_no_section_is_named() -> None:
    secrets(f'presence = "{SECRET}"')
    said = complaint()
    assert "[presence]" in said
    assert SECRET not in said


def test_secrets_that_cannot_be_read_are_told_from_none() -> None:
    secrets(f"[presence]\nurl = {URL}\napi_key = {SECRET}")
    said = complaint()
    assert said.startswith("The secrets cannot be read: correct .streamlit/secrets.toml")
    assert SECRET not in said


@pytest.mark.parametrize(
    "url",
    ["presence.example.org", "ftp://presence", "https://", "http://[::1", "http://host:port", "ws://host"],
)
def test_an_address_must_be_one(url: str) -> None:
    assert "http:// or https://" in complaint(url=url, api_key=KEY)


@pytest.mark.parametrize(
    "url", ["https://user:pw@host", "https://:pw@host", "https://host?x=1", "https://host#x"]
)
def test_an_address_is_plain(url: str) -> None:
    said = complaint(url=url, api_key=KEY)
    assert "plain address" in said
    assert "pw" not in said.split("`url`")[0]


@pytest.mark.parametrize("key", ["your-api-key", "<api key>", "CHANGE_ME", "…", "sk-..."])
def test_a_placeholder_is_no_key(key: str) -> None:
    said = complaint(url=URL, api_key=key)
    assert "placeholder" in said or "no key has" in said
    assert "PRESENCE_API_KEY" in said


def test_a_key_with_a_stray_character_is_no_key() -> None:
    said = complaint(url=URL, api_key=f"{KEY}\u200b")
    assert "copy it again" in said
    assert KEY not in said


def test_a_pool_name_is_an_id() -> None:
    assert "`pool`" in complaint(url=URL, api_key=KEY, pool="my study")
