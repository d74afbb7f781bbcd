"""The files beside this one, and the Streamlit components made of them."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import streamlit as st

if TYPE_CHECKING:
    from streamlit.components.v2.types import ComponentRenderer

__all__ = ["component", "has_components", "read", "script"]


@cache
def read(name: str) -> str:
    """The text of a file."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def script(name: str) -> str:
    """The module of a component: Streamlit takes one text."""
    return f"{read('messages.js')}\n{read(f'{name}.js')}"


def has_components() -> bool:
    """Whether this Streamlit has components that run in the app's own window (since 1.51)."""
    return hasattr(st.components, "v2")


@cache
def component(name: str) -> ComponentRenderer:
    """The component made of `name`.html, .css and .js; registered once."""
    return st.components.v2.component(
        f"presence_tracker_{name}",
        html=read(f"{name}.html"),
        css=read(f"{name}.css"),
        js=script(name),
    )
