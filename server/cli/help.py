"""The settings, as text for `presence serve --help`."""

from __future__ import annotations

from pydantic.fields import FieldInfo

from server.settings import ProductionSettings

HOSTING = (
    ("PORT", "", "Port, on hosts that set it; then all addresses are bound"),
    ("WEB_CONCURRENCY", "1", "Worker processes"),
)


def settings_help() -> str:
    """One line a setting: variable, default, meaning."""
    fields = [
        (name, _default(field), field.description or "")
        for name, field in ProductionSettings.variables().items()
    ]
    rows = [*fields, *HOSTING]
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{name:{width}}  {meaning}{default and f' [{default}]'}" for name, default, meaning in rows]
    # Each line a paragraph of its own kind: \b keeps click from flowing them together.
    return "\b\nSettings, from the environment [default]:\n" + "\n".join(lines)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return "" if field.default in (None, ()) else f"{field.default}"
