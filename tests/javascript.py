"""Check the JavaScript: syntax, and types with the TypeScript compiler. Its tests run under pytest.

`python -m tests.javascript`; without Node.js it says so loudly and passes, with REQUIRE_ALL=1 it fails.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.prerequisites import PREREQUISITES, all_required

ROOT = Path(__file__).parent.parent
CLIENT = ROOT / "client_js"
PROJECTS = ("tsconfig.json", "tsconfig.pages.json")
COMPILER = CLIENT / "node_modules" / "typescript" / "bin" / "tsc"
PATIENCE_S = 300


def sources() -> Iterator[Path]:
    """Every JavaScript file of ours."""
    pages = ROOT / "server" / "pages" / "files"
    components = ROOT / "presence_tracker" / "src" / "presence_tracker" / "streamlit_ui"
    tests = ROOT / "tests" / "dashboard"
    folders = (CLIENT, CLIENT / "client", CLIENT / "testing", pages, pages / "dashboard", components, tests)
    for folder in folders:
        yield from sorted(folder.glob("*.js"))


def check_syntax(node: str) -> bool:
    """Whether Node can read every file."""
    wrong = [path for path in sources() if not _run(node, "--input-type=module", "--check", source=path)]
    return not wrong


def check_types(node: str) -> bool:
    """Whether the compiler finds nothing. It is installed first if need be."""
    if not COMPILER.exists() and not _run("npm", "ci", "--no-audit", "--no-fund"):
        return False
    failed = [project for project in PROJECTS if not _run(node, str(COMPILER), "--project", project)]
    return not failed


def _run(*command: str, source: Path | None = None) -> bool:
    given = None if source is None else source.read_bytes()
    done = subprocess.run(
        command, cwd=CLIENT, input=given, timeout=PATIENCE_S, check=False, capture_output=True
    )
    if done.returncode:
        print(f"{source or ' '.join(command)}:\n{(done.stdout + done.stderr).decode()}")
    return done.returncode == 0


def main() -> int:
    """Run all checks, and say what is wrong."""
    node = PREREQUISITES["node"].find()
    if node is None:
        verdict = "REQUIRED, MISSING" if all_required() else "NOT CHECKED"
        print(f"*** {verdict}: the JavaScript (no node; Debian: apt-get install nodejs npm)")
        return 1 if all_required() else 0
    return 0 if check_syntax(node) & check_types(node) else 1


if __name__ == "__main__":
    sys.exit(main())
