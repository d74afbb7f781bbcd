"""Reads the pages of the documentation: their links, names and commands, and what the commands are said to print."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_SQL = re.compile(r"^```sql\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_RUN = re.compile(r"^<!-- run: ([^\n]+) -->\n```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def sql_of(page: Path) -> list[str]:
    """The blocks of SQL of a page, each as it would be pasted."""
    return _SQL.findall(page.read_text(encoding="utf-8"))


def shown(page: Path, mark: str, output: str) -> bool:
    """Whether the page shows this output between `<!-- mark -->` and its end; with UPDATE_DOCS set, make it so."""
    return generated(page, mark, f"```text\n{output}```\n")


def generated(page: Path, mark: str, markdown: str) -> bool:
    """The same for Markdown."""
    text = page.read_text(encoding="utf-8")
    end = f"<!-- /{mark.partition(':')[0]} -->"
    before, start, rest = text.partition(f"<!-- {mark} -->\n")
    assert start, f"{page.name} has no mark {mark}"
    new = before + start + markdown + rest[rest.index(end) :]
    if "UPDATE_DOCS" in os.environ:
        page.write_text(new, encoding="utf-8")
        return True
    return text == new


def sections(page: Path) -> set[str]:
    """The anchors of a page's titles, as git hosts make them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@dataclass(frozen=True, slots=True)
class Step:
    """A command of a page, and the lines that the page shows below it; `…` stands for what differs each time."""

    command: str
    shown: tuple[str, ...]

    def is_answered_by(self, output: str) -> bool:
        """Whether the command, run for real, says what the page shows."""
        lines = "\n".join(line.rstrip() for line in output.splitlines())
        pattern = "\n".join(_like(line) for line in self.shown)
        return re.fullmatch(pattern, lines) is not None


def runs(page: Path) -> dict[str, list[Step]]:
    """What a page says to run (`<!-- run: in such a case -->` before a block of console), by the case, in its order."""
    found: dict[str, list[Step]] = {}
    for case, block in _RUN.findall(page.read_text(encoding="utf-8")):
        found.setdefault(case, []).extend(_steps(block))
    return found


def _steps(block: str) -> Iterator[Step]:
    for part in re.split(r"^\$ ", block.replace("\\\n", ""), flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield Step(command, tuple(line.rstrip() for line in shown.splitlines()))


def _like(line: str) -> str:
    # A line of `…` alone stands for any lines.
    if line == "…":
        return r"(?s:.*)"
    return ".*".join(re.escape(part) for part in line.split("…"))


def code(page: Path) -> Iterator[tuple[str, str]]:
    """The blocks of code of a page with their languages."""
    yield from _BLOCK.findall(page.read_text(encoding="utf-8"))


def named(page: Path) -> list[str]:
    """What stands in backticks in the text of a page, outside the blocks of code."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)


def links(page: Path) -> Iterator[tuple[str, str]]:
    """The links of a page to files of this repository: target (empty: the page itself) and section."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z+]+:", target):
            file, _, section = target.partition("#")
            yield file, section
