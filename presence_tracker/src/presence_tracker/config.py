"""Where the server is and which key opens it: from the call, from Streamlit's secrets, or from the environment."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from presence_tracker.errors import PresenceConfigError
from presence_tracker.streamlit_secrets import section

DEFAULT_POOL = "main"
WHERE_TO_SET = (
    "under [presence] in .streamlit/secrets.toml (on Community Cloud: in the app's secrets), "
    "or in the environment as {variable}"
)
_VARIABLES = {
    "url": "PRESENCE_URL",
    "api_key": "PRESENCE_API_KEY",
    "pool": "PRESENCE_POOL",
    "public_url": "PRESENCE_PUBLIC_URL",
}
_NEEDED = {"url": "the address of the presence server", "api_key": "its API key"}
_PLACEHOLDER = re.compile(r"(?i)your[-_ ]|change[-_ ]?me|placeholder|\.\.\.|…|<.*>")
_HEADER_SAFE = re.compile(r"[\x21-\x7e]+")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@-]{0,127}")


@dataclass(frozen=True, slots=True)
class Config:
    """How to reach the server. `public_url`: where browsers reach it, if that is another address."""

    url: str
    api_key: str = field(repr=False)
    pool: str = DEFAULT_POOL
    public_url: str | None = None

    @property
    def client_url(self) -> str:
        """Where browsers load the client from."""
        return f"{self.public_url or self.url}/client.js"


def find_config(*, url: str | None = None, api_key: str | None = None, pool: str | None = None) -> Config:
    """What the caller gives, else Streamlit's secrets, else the environment.

    PresenceConfigError says in one sentence what is missing or wrong, and where to set it; it never shows a key.
    """
    given = _filled({"url": url, "api_key": api_key, "pool": pool})
    found = {**_environment(), **given}
    if not _is_complete(found) or "streamlit" in sys.modules:
        found = {**_environment(), **_secrets(), **given}
    _check_complete(found)
    return Config(
        url=_address(found["url"], "url"),
        api_key=_key(found["api_key"]),
        pool=_pool(found.get("pool", DEFAULT_POOL)),
        public_url=_address(found["public_url"], "public_url") if "public_url" in found else None,
    )


def _environment() -> dict[str, str]:
    return _filled({name: os.environ.get(variable) for name, variable in _VARIABLES.items()})


def _secrets() -> dict[str, str]:
    found = section("presence")
    return _filled({name: found.get(name) for name in _VARIABLES})


def _filled(values: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value).strip() for name, value in values.items() if value and str(value).strip()}


def _is_complete(found: Mapping[str, str]) -> bool:
    return all(name in found for name in _NEEDED)


def _check_complete(found: Mapping[str, str]) -> None:
    missing = [name for name in _NEEDED if name not in found]
    if not missing:
        return
    wanted = " and ".join(f"`{name}` ({_NEEDED[name]})" for name in missing)
    where = WHERE_TO_SET.format(variable=" and ".join(_VARIABLES[name] for name in missing))
    if section("supabase") and not section("presence"):
        raise PresenceConfigError(
            f"The [supabase] secrets are those of the old tracker: set {wanted} {where}."
        )
    raise PresenceConfigError(f"The presence server is not configured: set {wanted} {where}.")


def _address(url: str, name: str) -> str:
    parts = _parts(url)
    where = WHERE_TO_SET.format(variable=_VARIABLES[name])
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise PresenceConfigError(
            f"`{name}` must be an address like https://presence.example.org, with http:// or https://: set it {where}."
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise PresenceConfigError(
            f"`{name}` must be the plain address of the server, without user, query or fragment: set it {where}."
        )
    return url.rstrip("/")


def _parts(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it checks it
    except ValueError:
        return None
    return parts


def _key(keys: str) -> str:
    """The first of the keys, which a server may have several of."""
    key = keys.partition(",")[0].strip()
    where = WHERE_TO_SET.format(variable=_VARIABLES["api_key"])
    if not _HEADER_SAFE.fullmatch(key):
        raise PresenceConfigError(
            f"`api_key` has a character that no key has: copy it again, and set it {where}."
        )
    if _PLACEHOLDER.search(key):
        raise PresenceConfigError(
            f"`api_key` is still the placeholder: set the server's PRESENCE_API_KEY {where}."
        )
    return key


def _pool(name: str) -> str:
    if not _ID.fullmatch(name):
        raise PresenceConfigError(
            "`pool` must be letters, digits and _.:@- only, at most 128, the first a letter or digit."
        )
    return name
