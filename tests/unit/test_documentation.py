"""Links, files, names and commands of the documentation exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer

from server.cli.commands import app
from tests.documentation import PAGES, ROOT, code, links, named, sections

ALL_PAGES = [*PAGES, *sorted(ROOT.glob("examples/*/README.md"))]
ARCHITECTURE = ROOT / "docs/architecture.md"
TROUBLESHOOTING = ROOT / "docs/troubleshooting.md"
SOURCES = ("server", "persistence", "client_js", "presence_tracker/src", "tests", "benchmarks")
# What looks like a path to a file of ours.
FILE = re.compile(
    r"(?:server|persistence|client_js|presence_tracker|tests|docs|examples|benchmarks)/[\w./-]*|Procfile|Makefile"
)
# Said of a function or class together with its place.
PLACED = re.compile(r"`(\w+)`(?: of| in)\s+`([\w./]+\.(?:py|lua|js))`")
SHELLS = ("sh", "console", "shell", "bash")
each_page = pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@each_page
def test_every_link_leads_to_a_file_and_a_section(page: Path) -> None:
    for target, section in links(page):
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), target
        assert not section or section in sections(there), f"{target}#{section}"


@each_page
def test_every_file_that_is_named_exists(page: Path) -> None:
    names = {name for name in named(page) if FILE.fullmatch(name)}
    missing = [name for name in names if not (ROOT / name).exists() and not (page.parent / name).exists()]
    assert not missing


@each_page
def test_every_presence_command_is_one_and_takes_what_it_is_given(page: Path) -> None:
    for command in presence_commands(page):
        check_presence(command)


@each_page
def test_every_make_target_is_one(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for line in command_lines(page):
        for target in re.findall(r"(?:^|[&;|] *)make ([a-z]+)", line):
            assert target in targets, line


def command_lines(page: Path) -> Iterator[str]:
    """What a page says to type, in blocks and in the text."""
    for language, block in code(page):
        if language in SHELLS:
            lines = block.replace("\\\n", " ").splitlines()
            is_console = language == "console"
            yield from (line.removeprefix("$ ") for line in lines if line.startswith("$ ") or not is_console)
    yield from named(page)


def presence_commands(page: Path) -> Iterator[list[str]]:
    """The words of each `presence …`."""
    for line in command_lines(page):
        for part in re.split(r"&&|\|(?! )|\| (?=[a-z])|;|#", line):
            words = _words(part)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            if words[:1] == ["presence"] and len(words) > 1:
                yield words[1:]


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def check_presence(words: list[str]) -> None:
    """Click knows the command, and each option that it is given."""
    group = typer.main.get_command(app)
    commands = group.commands  # type: ignore[attr-defined]
    name, rest = words[0], words[1:]
    if name == "…":
        return
    if name.startswith("-"):
        assert name == "--help"
        return
    assert name in commands, f"presence {name}"
    options = {option for parameter in commands[name].params for option in parameter.opts} | {"--help"}
    given = [word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)]
    assert set(given) <= options, f"presence {' '.join(words)}"


class TestArchitecture:
    def test_the_floors_are_those_that_are_enforced(self) -> None:
        contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
            "importlinter"
        ]
        (floors,) = [each["layers"] for each in contracts["contracts"] if each["type"] == "layers"]
        (said,) = re.findall(
            r"<!-- floors -->\n```text\n(.*?)```", ARCHITECTURE.read_text(encoding="utf-8"), re.DOTALL
        )
        assert said.splitlines() == floors

    def test_each_name_stands_where_the_page_says(self) -> None:
        placed = PLACED.findall(ARCHITECTURE.read_text(encoding="utf-8"))
        assert len(placed) > 30
        for name, file in placed:
            text = (ROOT / file).read_text(encoding="utf-8")
            assert re.search(rf"(?:def|class|function|const) {name}\b", text), f"{name} in {file}"

    def test_each_other_name_is_one_of_the_program(self) -> None:
        for name in named(ARCHITECTURE):
            if re.fullmatch(r"[A-Za-z_]\w+", name):
                assert re.search(rf"\b{name}\b", _everything()), name

    def test_each_loop_is_told_of(self) -> None:
        started = re.findall(r'_run\(f?"(\w+)', (ROOT / "server/node/loops.py").read_text(encoding="utf-8"))
        text = ARCHITECTURE.read_text(encoding="utf-8")
        told = re.findall(
            r"^\| `(\w+)`(?:, of each pool)? \|", text[text.index("What each loop does") :], re.MULTILINE
        )
        assert sorted(told) == sorted(started)

    def test_each_key_of_a_pool_is_told_of(self) -> None:
        text = (ROOT / "server/live/keys.py").read_text(encoding="utf-8")
        keys = set(re.findall(r'self\.prefix \+ "(\w+)"|\{self\.prefix\}(\w+):', text))
        told = set(named(ARCHITECTURE))
        assert {first or f"{other}:…" for first, other in keys} <= told


@cache
def _everything() -> str:
    kinds = ("*.py", "*.lua", "*.js", "*.sql")
    files = (file for folder in SOURCES for kind in kinds for file in (ROOT / folder).rglob(kind))
    return "\n".join(file.read_text(encoding="utf-8") for file in files if "node_modules" not in file.parts)


def test_each_check_of_the_doctor_has_its_section() -> None:
    files = [*(ROOT / "server/doctor").glob("*.py"), ROOT / "server/cli/doctor.py"]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    checks = set(re.findall(r'(?:ok|skipped|careful|failed|_none_of)\(\s*"([a-z ]+)"', text))
    assert len(checks) > 15
    assert {check.replace(" ", "-") for check in checks} <= sections(TROUBLESHOOTING)


def test_the_readme_leads_to_every_page() -> None:
    linked = {target for target, _ in links(ROOT / "README.md")}
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked
