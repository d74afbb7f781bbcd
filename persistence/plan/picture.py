"""The plan as a picture: an SVG that needs nothing else, follows light and dark, and says in words what it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from persistence.plan.planning import AtLimit, Plan
from persistence.plan.words import answer, duration, percent

WIDTH, HEIGHT = 760, 560
LEFT, RIGHT = 78, 24
IDLE = 0.0005
"""With a chance of waiting below this, practically nobody waits."""

HOPELESS = 0.6
"""Limits at which more than this have to wait need not fit into the picture."""

MANY = 14
"""With more bars than this there is no room for a number on each."""

_STEPS_S = (60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 14_400, 28_800, 86_400)
_STYLE = """
svg { color-scheme: light dark; font: 13px system-ui, sans-serif; --ink: #1d232b; --soft: #5b6673; --grid: #d9dee4;
  --page: #ffffff; --bar: #2f6fb2; --chosen: #b4540a; --median: #2f6fb2; --high: #8a3ffc; --band: #b4540a1f }
@media (prefers-color-scheme: dark) {
  svg { --ink: #e8ecf1; --soft: #a3afbd; --grid: #3a434e; --page: #14181d; --bar: #6ea8e0; --chosen: #f0a35e;
    --median: #6ea8e0; --high: #c3a1ff; --band: #f0a35e26 }
}
text { fill: var(--ink) } .soft { fill: var(--soft) } .title { font-size: 17px; font-weight: 600 }
.grid { stroke: var(--grid) } .bar { fill: var(--bar) } .bar.chosen { fill: var(--chosen) } .end { text-anchor: end }
.mid { text-anchor: middle } .median, .high { fill: none; stroke-width: 2.5; stroke: var(--median) }
.high { stroke: var(--high) } .dot { stroke: none; fill: var(--median) } .dot.high { fill: var(--high) }
.target { stroke: var(--chosen); stroke-dasharray: 6 4; stroke-width: 1.5 } .chosen-text { fill: var(--chosen) }
.band { fill: var(--band) } .page { fill: var(--page) }
"""


@dataclass(slots=True, frozen=True)
class Panel:
    """One diagram: where it is, and what its upper edge stands for."""

    top: float
    bottom: float
    most: float

    def y(self, value: float) -> float:
        """The height of a value; what is above the edge is drawn at the edge."""
        return self.bottom - min(1.0, value / self.most) * (self.bottom - self.top)


def svg(plan: Plan) -> str:
    """The picture: above, the chance of waiting for each limit; below, how long the waits are."""
    shown = worth_showing(plan)
    chance, waits = Panel(112, 270, 1.0), Panel(338, 486, _highest_wait(shown, plan))
    parts = [
        *_head(plan),
        *_chosen(shown, plan),
        *_bars(shown, chance, plan),
        *_grid(waits, [waits.most * share for share in (0, 0.5, 1)], duration),
        *_line(shown, waits, "high", lambda each: each.p95_wait_s),
        *_line(shown, waits, "median", lambda each: each.median_wait_s),
        *_target(waits, plan),
        *_foot(shown, plan),
    ]
    return "\n".join([*parts, "</svg>", ""])


def worth_showing(plan: Plan) -> list[AtLimit]:
    """All limits up to the second at which practically nobody waits: more places change nothing any more."""
    idle = [index for index, each in enumerate(plan.limits) if each.chance_of_waiting < IDLE]
    chosen = next((index for index, each in enumerate(plan.limits) if each.limit == plan.smallest), 0)
    return plan.limits[: max(idle[1] if len(idle) > 1 else len(plan.limits) - 1, chosen) + 1]


def _highest_wait(shown: Sequence[AtLimit], plan: Plan) -> float:
    """The upper edge of the waits: high enough for the target, and for all but the hopeless limits."""
    bearable = [each.p95_wait_s for each in shown if each.p95_wait_s and each.chance_of_waiting < HOPELESS]
    return _round_up(max([*bearable, 2 * plan.target.wait_s, 60.0]))


def _round_up(seconds: float) -> float:
    return next((float(step) for step in _STEPS_S if step >= seconds), seconds)


def _head(plan: Plan) -> Iterator[str]:
    title = "How many places are needed" + (f": pool {plan.pool}" if plan.pool else "")
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-labelledby="plan-title plan-desc">'
    )
    yield f'<title id="plan-title">{escape(title)}</title>'
    yield f'<desc id="plan-desc">{escape(description(plan))}</desc>'
    yield f"<style>{_STYLE}</style>"
    yield f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>'
    yield _text(LEFT, 34, title, "title")
    yield _text(LEFT, 58, answer(plan), "chosen-text")
    yield _text(LEFT, 84, "Chance of having to wait", "soft")
    yield _text(LEFT, 324, "Wait", "soft")
    yield _text(WIDTH - RIGHT - 130, 324, "● half wait no longer", "soft end", "--median")
    yield _text(WIDTH - RIGHT, 324, "● 95 % no longer", "soft end", "--high")


def description(plan: Plan) -> str:
    """What is to be seen, for those who do not see it."""
    waits = (
        f"{each.limit}: {percent(each.chance_of_waiting)} wait, 95 % no longer than {duration(each.p95_wait_s)}"
        for each in worth_showing(plan)
    )
    return f"{answer(plan)} By number of places: {'; '.join(waits)}."


def _x(shown: Sequence[AtLimit], index: int) -> float:
    return LEFT + (index + 0.5) * _step(shown)


def _step(shown: Sequence[AtLimit]) -> float:
    return (WIDTH - LEFT - RIGHT) / len(shown)


def _chosen(shown: Sequence[AtLimit], plan: Plan) -> Iterator[str]:
    for index, each in enumerate(shown):
        if each.limit == plan.smallest:
            yield _rect("band", _x(shown, index) - _step(shown) / 2, 104, _step(shown), 412)


def _bars(shown: Sequence[AtLimit], panel: Panel, plan: Plan) -> Iterator[str]:
    yield from _grid(panel, [0, 0.5, 1], percent)
    width = min(38.0, _step(shown) * 0.62)
    for index, each in enumerate(shown):
        x, y = _x(shown, index), panel.y(each.chance_of_waiting)
        kind = "bar chosen" if each.limit == plan.smallest else "bar"
        yield _rect(kind, x - width / 2, y, width, panel.bottom - y)
        if len(shown) <= MANY:
            yield _text(x, y - 5, percent(each.chance_of_waiting), "mid")


def _grid(panel: Panel, values: Sequence[float], words: Callable[[float], str]) -> Iterator[str]:
    for value in values:
        y = panel.y(value)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield _text(LEFT - 10, y + 4, words(value), "soft end")


def _line(
    shown: Sequence[AtLimit], panel: Panel, kind: str, value: Callable[[AtLimit], float | None]
) -> Iterator[str]:
    """A line through the values that fit into the panel; it comes down from the upper edge."""
    points = []
    for index, each in enumerate(shown):
        seconds = value(each)
        off = seconds is None or seconds > panel.most
        points.append((_x(shown, index), panel.y(panel.most if seconds is None else seconds), off))
    first = next((index for index, (_, _, off) in enumerate(points) if not off), len(points))
    drawn = points[max(0, first - 1) :]
    yield f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y, _ in drawn)}"/>'
    for x, y, off in drawn:
        if not off:
            yield f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'


def _target(panel: Panel, plan: Plan) -> Iterator[str]:
    y = panel.y(plan.target.wait_s)
    yield f'<line class="target" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    yield _text(WIDTH - RIGHT, y - 6, f"target {duration(plan.target.wait_s)}", "chosen-text end")


def _foot(shown: Sequence[AtLimit], plan: Plan) -> Iterator[str]:
    every = 1 + len(shown) // 26
    for index, each in enumerate(shown):
        if index % every == 0 or each.limit == plan.smallest:
            yield _text(_x(shown, index), 508, str(each.limit), "mid")
    yield _text((LEFT + WIDTH - RIGHT) / 2, 542, "places (interviews at the same time)", "soft mid")


def _rect(kind: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _text(x: float, y: float, words: str, kind: str, dot: str | None = None) -> str:
    """A line of text; its first character may be a dot in the colour of a line."""
    if dot is None:
        return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'
    coloured = f'<tspan style="fill: var({dot})">{words[0]}</tspan>{escape(words[1:])}'
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{coloured}</text>'
