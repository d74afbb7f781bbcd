"""The example of docs/planning.md: a made-up study. `python -m tests.plan_example` writes its table and picture."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from persistence.plan.demand import DAY_S, HOUR_S, Visit, observed
from persistence.plan.picture import svg
from persistence.plan.planning import Plan, Question, Target, plan_from_history
from server.cli.plan import show_plan

ROOT = Path(__file__).parent.parent
PAGE, PICTURE = ROOT / "docs" / "planning.md", ROOT / "docs" / "images" / "plan.svg"
BLOCK = re.compile(r"(?<=\n```text\n).*?(?=```\n)", re.DOTALL)
MONDAY = 20_601 * DAY_S
DAYS = 28


def visits() -> Iterator[Visit]:
    """Four weeks: on working days a class at ten and single people until the evening; a few at weekends."""
    rng = random.Random(11)
    for day in range(DAYS):
        start = MONDAY + day * DAY_S
        working = day % 7 < 5
        hours = [
            rng.triangular(8, 20, 14) for _ in range(rng.randint(14, 22) if working else rng.randint(0, 6))
        ]
        hours += [10 + rng.gauss(0, 0.05) for _ in range(8 if day % 7 in {1, 3} else 0)]
        for hour in hours:
            long = rng.random() < 0.25
            minutes = rng.lognormvariate(3.5, 0.25) if long else rng.lognormvariate(2.7, 0.3)
            yield Visit(start + hour * HOUR_S, 0.0, minutes * 60)


def example() -> Plan:
    """The plan for that study."""
    demand = observed(list(visits()), MONDAY, MONDAY + DAYS * DAY_S + HOUR_S)
    return plan_from_history(demand, Question(range(1, 21), Target(), "main"))


def printed(plan: Plan) -> str:
    """What the command prints."""
    sink = io.StringIO()
    show_plan(plan, Console(file=sink, width=110, highlight=False))
    return "\n".join(line.rstrip() for line in sink.getvalue().splitlines()) + "\n"


def main() -> None:
    """Write the example into the docs."""
    plan = example()
    PICTURE.write_text(svg(plan), encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(BLOCK.sub(lambda _: printed(plan), page), encoding="utf-8")


if __name__ == "__main__":
    main()
