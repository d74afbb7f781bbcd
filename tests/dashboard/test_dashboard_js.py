"""The dashboard's pure modules, under Node.js."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.prerequisites import demand

HERE = Path(__file__).parent
DASHBOARD = HERE.parents[1] / "server" / "pages" / "files" / "dashboard"
PATIENCE_S = 60


@pytest.mark.node
def test_the_tests_of_the_modules_pass(tmp_path: Path) -> None:
    node = demand("node")
    (tmp_path / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    for file in (*DASHBOARD.glob("*.js"), *HERE.glob("*.test.js")):
        shutil.copy(file, tmp_path)
    tests = sorted(path.name for path in tmp_path.glob("*.test.js"))
    command = [node, "--test", *tests]
    done = subprocess.run(
        command, cwd=tmp_path, timeout=PATIENCE_S, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^# pass [1-9]", done.stdout, re.MULTILINE), done.stdout


def test_no_module_makes_markup_of_data_or_runs_text_as_code() -> None:
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc"
    )
    for file in DASHBOARD.glob("*.js"):
        assert not forbidden.search(file.read_text(encoding="utf-8")), file.name


def test_nothing_is_loaded_from_elsewhere() -> None:
    for file in DASHBOARD.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(https?:)?//[a-z0-9.-]+\.[a-z]{2,}", text), file.name
