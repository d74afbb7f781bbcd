"""The package by itself: what it may import, and what comes along."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

PACKAGE = Path(str(files("presence_tracker")))
WITHOUT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
sys.path = [path for path in sys.path if path]
"""
USE = """
import presence_tracker
from presence_tracker import get_presence_tracker
presence = get_presence_tracker(max_concurrent=3, url="http://127.0.0.1:9", api_key="k-0123456789abcdefghijklmn")
presence.mark_session_started("anna")
assert presence.can_start_interview()[0] is False
try:
    presence.capacity_box()
except ImportError as error:
    print("no", error)
assert not {"streamlit", "server", "persistence", "client_js"} & set(sys.modules)
"""


def python(program: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, cwd=cwd
    )


def test_it_works_without_streamlit_and_without_us(tmp_path: Path) -> None:
    blocked = ("streamlit", "server", "persistence", "client_js")
    done = python(WITHOUT.format(blocked=blocked) + USE, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("no streamlit")


def test_without_streamlit_a_missing_configuration_is_still_one_sentence(tmp_path: Path) -> None:
    program = (
        WITHOUT.format(blocked=("streamlit",)) + "import presence_tracker as p\np.get_presence_tracker()"
    )
    done = python(program, tmp_path)
    assert done.stderr.splitlines()[-1].startswith(
        "presence_tracker.errors.PresenceConfigError: The presence server is not configured: set `url`"
    )


def test_importing_it_does_not_import_streamlit(tmp_path: Path) -> None:
    done = python("import presence_tracker, sys; assert 'streamlit' not in sys.modules", tmp_path)
    assert done.returncode == 0, done.stderr


def test_type_checkers_read_its_types() -> None:
    assert (PACKAGE / "py.typed").exists()
