"""Sections of `st.secrets`, read without the red box that some versions of Streamlit show when there are none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from presence_tracker.errors import PresenceConfigError

if TYPE_CHECKING:
    from types import ModuleType


def section(name: str) -> Mapping[str, object]:
    """The section; empty if there is none, or no Streamlit. PresenceConfigError if the secrets cannot be read."""
    try:
        import streamlit as st  # noqa: PLC0415 - only where Streamlit is
    except ImportError:
        return {}
    found = st.secrets.get(name, {}) if _are_there(st) else {}
    if not isinstance(found, Mapping):
        raise PresenceConfigError(
            f"{name} in .streamlit/secrets.toml must be a section: write [{name}] above its values."
        )
    return found


def _are_there(st: ModuleType) -> bool:
    try:
        if st.secrets.load_if_toml_exists():
            return True
    except ValueError:  # what older versions say of a malformed file
        raise _unreadable() from None
    if any(Path(path).is_file() for path in st.config.get_option("secrets.files")):
        raise _unreadable()
    return False


def _unreadable() -> PresenceConfigError:
    """Without what the parser says: it may quote a secret."""
    return PresenceConfigError(
        "The secrets cannot be read: correct .streamlit/secrets.toml, where every text needs quotation marks."
    )
