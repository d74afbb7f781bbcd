"""`get_presence_tracker`: the first line of an app."""

from __future__ import annotations

import logging
from functools import cache

from presence_tracker.api import PresenceApi
from presence_tracker.config import Config, find_config
from presence_tracker.errors import PresenceUnavailableError
from presence_tracker.identity import is_in_streamlit_run
from presence_tracker.texts import Catalogue, Texts
from presence_tracker.tracker import PresenceTracker

log = logging.getLogger("presence_tracker")


def get_presence_tracker(
    max_concurrent: int | None = None,
    *,
    url: str | None = None,
    api_key: str | None = None,
    pool: str | None = None,
    embed: bool = True,
    fail_open: bool = False,
    dev_mode: bool = False,
    texts: Catalogue | None = None,
) -> PresenceTracker:
    """The tracker for the server of `st.secrets["presence"]`, or of PRESENCE_URL and PRESENCE_API_KEY.

    Call it at the top of every run of a Streamlit app: there it places the browser client too (`embed=False`: place it
    yourself with `.embed()`). `max_concurrent` sets the pool's limit when it differs from what was declared last, so
    an operator's change stays. `fail_open`: let everybody in while the server is away. `dev_mode`, or
    `st.session_state["dev_mode"]`: log each call. `texts` replaces the package's own: `{"de": {"title": "..."}}`.

    PresenceConfigError, with one sentence, if the configuration is missing or wrong.
    """
    config = find_config(url=url, api_key=api_key, pool=pool)
    api = _api(config, dev_mode=dev_mode or _is_dev_session())
    tracker = PresenceTracker(api, config, fail_open=fail_open, places_client=embed, texts=Texts(texts))
    if max_concurrent is not None:
        _declare(api, max_concurrent)
    tracker.catch_up()
    tracker.place_client()
    return tracker


def _declare(api: PresenceApi, limit: int) -> None:
    """A server that is away hears of it in a later run."""
    try:
        api.keep_declared(limit)
    except PresenceUnavailableError as away:
        log.warning("The limit of %d could not be declared: %s", limit, away)


def _api(config: Config, *, dev_mode: bool) -> PresenceApi:
    """The one connection of this process to that server."""
    if dev_mode:
        _show_log()
    if not is_in_streamlit_run():
        return _kept_api(config.url, config.api_key, config.pool, dev_mode)
    import streamlit as st  # noqa: PLC0415 - only where Streamlit is

    kept = st.cache_resource(show_spinner=False)(_new_api)
    return kept(config.url, config.api_key, config.pool, dev_mode)


def _new_api(url: str, api_key: str, pool: str, dev_mode: bool) -> PresenceApi:
    return PresenceApi(url, api_key, pool=pool, dev_mode=dev_mode)


_kept_api = cache(_new_api)


def _is_dev_session() -> bool:
    if not is_in_streamlit_run():
        return False
    import streamlit as st  # noqa: PLC0415 - only where Streamlit is

    return bool(st.session_state.get("dev_mode"))


def _show_log() -> None:
    """Nobody has set up logging in most apps; then what `dev_mode` logs goes to stderr."""
    log.setLevel(logging.INFO)
    if not log.hasHandlers():
        log.addHandler(logging.StreamHandler())
