"""The README's table of settings is the settings."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pydantic_core import PydanticUndefined

from server.settings import Settings

README = Path(__file__).parents[2] / "README.md"
BETWEEN_MARKS = re.compile(r"(<!-- settings -->\n).*?(<!-- /settings -->)", re.DOTALL)


def settings_table() -> str:
    """All settings with their defaults, as the README shows them."""
    rows = ["| variable | default | what |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias.choices[0] if field.validation_alias else f"PRESENCE_{name.upper()}"  # type: ignore[union-attr]
        default = "" if field.default in (None, (), PydanticUndefined) else f"`{_plain(field.default)}`"
        rows.append(f"| `{alias}` | {default} | {field.description} |")
    return "\n".join(rows) + "\n"


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_the_readme_lists_every_setting_with_its_default() -> None:
    text = README.read_text()
    expected = BETWEEN_MARKS.sub(lambda marks: marks[1] + "\n" + settings_table() + "\n" + marks[2], text)
    if "UPDATE_README" in os.environ:
        README.write_text(expected)
    assert text == expected, "run UPDATE_README=1 pytest tests/unit/test_readme.py twice"
