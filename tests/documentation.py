"""Reads the pages of the documentation: their SQL, and the output that a test makes anew between marks."""

from __future__ import annotations

import os
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_SQL = re.compile(r"^```sql\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sql_of(page: Path) -> list[str]:
    """The blocks of SQL of a page, each as it would be pasted."""
    return _SQL.findall(page.read_text(encoding="utf-8"))


def shown(page: Path, mark: str, output: str) -> bool:
    """Whether the page shows this output between `<!-- mark -->` and its end; with UPDATE_DOCS set, make it so."""
    text = page.read_text(encoding="utf-8")
    end = f"<!-- /{mark.partition(':')[0]} -->"
    before, start, rest = text.partition(f"<!-- {mark} -->\n")
    assert start, f"{page.name} has no mark {mark}"
    new = before + start + f"```text\n{output}```\n" + rest[rest.index(end) :]
    if "UPDATE_DOCS" in os.environ:
        page.write_text(new, encoding="utf-8")
        return True
    return text == new


def sections(page: Path) -> set[str]:
    """The anchors of a page's titles, as git hosts make them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
