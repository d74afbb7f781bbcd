"""The example in docs/planning.md is what the command says."""

from __future__ import annotations

from persistence.plan.picture import svg
from tests.plan_example import BLOCK, PAGE, PICTURE, example, printed


def test_the_page_shows_what_the_command_prints() -> None:
    plan = example()
    found = BLOCK.search(PAGE.read_text(encoding="utf-8"))
    assert found is not None
    assert found[0] == printed(plan)
    assert PICTURE.read_text(encoding="utf-8") == svg(plan)
