"""The browser client: its own tests run, its files are what the contract promises."""

import gzip
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.prerequisites import demand

CLIENT = Path(__file__).parents[2] / "client_js"
PROMISED_BYTES = 4096
IMPORT = re.compile(r'(?:from|import)\s*\(?\s*"(\.[^"]+)"')


def imported_from(entry: Path) -> Iterator[Path]:
    """`entry` and everything that a browser loads with it."""
    yield entry
    code = re.sub(r"/\*\*.*?\*/", "", entry.read_text(), flags=re.DOTALL)  # types are imported in comments
    for relative in IMPORT.findall(code):
        yield from imported_from((entry.parent / relative).resolve())


@pytest.mark.node
def test_the_tests_beside_the_client_pass() -> None:
    files = sorted(str(path) for path in (CLIENT / "testing").glob("*.test.js"))
    done = subprocess.run(
        [demand("node"), "--test", *files], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^# pass [1-9]", done.stdout, re.MULTILINE), done.stdout


def test_the_client_with_all_that_it_imports_is_at_most_4_kb_gzipped() -> None:
    sizes = {path.name: len(gzip.compress(path.read_bytes())) for path in imported_from(CLIENT / "client.js")}
    assert "client.js" in sizes
    assert sum(sizes.values()) <= PROMISED_BYTES, sizes


def test_the_client_imports_nothing_from_elsewhere() -> None:
    for path in imported_from(CLIENT / "client.js"):
        assert not re.findall(r'from\s+"(?!\.)', path.read_text()), path


def test_the_lock_file_names_no_registry() -> None:
    text = (CLIENT / "package-lock.json").read_text()
    assert "resolved" not in text
    assert "://" not in text
    assert json.loads(text)["packages"]["node_modules/typescript"]["integrity"]
