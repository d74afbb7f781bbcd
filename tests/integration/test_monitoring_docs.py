"""docs/monitoring.md tells of every series and every alert that there is; promtool takes the rules and the queries."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.browser import Browser
from tests.conftest import TEST_API_KEY, Serve
from tests.documentation import ROOT, code, sections
from tests.integration.http.api import Api
from tests.prerequisites import demand

PAGE = ROOT / "docs" / "monitoring.md"
RULES = ROOT / "docs" / "monitoring"
ALERTS = (RULES / "alerts.yml").read_text(encoding="utf-8")
# Not worth a row each: every exporter has them.
_OF_PROCESSES = "process_"
# How those of several nodes make one number, where it is neither their sum nor, for a pool, their maximum.
_TOGETHER = {
    "presence_redis_up": "each",
    "presence_build_info": "each",
    "presence_draining": "each",
    "presence_postgres_up": "each",
    "presence_flush_set_aside": "max",
    "presence_pools": "max",
}


def promtool(*arguments: str, folder: Path = RULES) -> str:
    """What promtool says; it must find nothing wrong."""
    command = [demand("promtool"), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts() -> list[str]:
    return re.findall(r"- alert: (\w+)", ALERTS)


async def test_every_series_is_in_the_tables_with_its_labels_and_meaning(
    serve: Serve, database_url: str
) -> None:
    node = await serve(database_url=database_url, max_line=0, max_concurrent=0)
    api = Api(node.url, TEST_API_KEY)
    opened = await api.open("anna")
    await api.claim(opened["session_id"])
    async with await Browser.join(node.ws_url, opened["token"]):
        pass
    async with asyncio.timeout(10):
        while "presence_leaves_total{" not in (text := (await api.call("GET", "/metrics")).text):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    families = [
        each for each in text_string_to_metric_families(text) if not each.name.startswith(_OF_PROCESSES)
    ]
    labels = {each.name.removesuffix("_total"): each.labels for each in node.node.measured.instruments()}
    rows = [_Row(each, labels.get(each.name, ())) for each in families]
    is_current = [
        _shown("series: pools", [each for each in rows if each.is_of_pools]),
        _shown("series: nodes", [each for each in rows if not each.is_of_pools]),
    ]
    assert all(is_current), "run this test with UPDATE_DOCS=1"
    await api.close()


class _Row:
    """A line of a table."""

    def __init__(self, family: Metric, labels: Iterable[str]) -> None:
        self.name = family.name + ("_total" if family.type == "counter" else "")
        names = {name for sample in family.samples for name in sample.labels} | set(labels)
        self._labels = sorted(names - {"le"}, key=lambda name: (name != "pool", name))
        self._type = family.type
        self._meaning = family.documentation
        self.is_of_pools = "pool" in names or self.name in ("presence_pools", "presence_redis_up")

    def __str__(self) -> str:
        together = _TOGETHER.get(self.name, "max" if self.is_of_pools else "sum")
        labels = ", ".join(f"`{name}`" for name in self._labels)
        return f"| `{self.name}` | {self._type} | {labels} | {together} | {self._meaning} |"


def _shown(mark: str, rows: list[_Row]) -> bool:
    """Whether the page has this table at its mark; with UPDATE_DOCS set, make it so."""
    text = PAGE.read_text(encoding="utf-8")
    before, start, rest = text.partition(f"<!-- {mark} -->\n")
    assert start, f"the page has no mark {mark}"
    head = "| series | type | labels | nodes | what it is |\n|---|---|---|---|---|\n"
    table = head + "".join(f"{row}\n" for row in sorted(rows, key=lambda row: row.name))
    new = before + start + "\n" + table + "\n" + rest[rest.index("<!-- /series -->") :]
    if "UPDATE_DOCS" in os.environ:
        PAGE.write_text(new, encoding="utf-8")
        return True
    return text == new


def test_every_alert_is_explained_and_nothing_else_is() -> None:
    explained = re.findall(r"^### (Presence\w+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert explained == alerts()
    runbooks = re.findall(r"runbook: docs/monitoring\.md#(\w+)", ALERTS)
    assert runbooks == [name.lower() for name in alerts()]
    assert set(runbooks) <= sections(PAGE)


def test_rules_and_queries_ask_for_series_that_there_are() -> None:
    text = PAGE.read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(presence_\w+)` \|", text, re.MULTILINE))
    asked = " ".join([*re.findall(r"expr: (.*?)(?=\n +(?:for|labels):)", ALERTS, re.DOTALL), *queries()])
    named = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"presence_\w+", asked)}
    assert len(named) > 20
    assert named <= documented


def queries() -> list[str]:
    return [line for language, block in code(PAGE) if language == "promql" for line in block.splitlines()]


def test_promtool_takes_the_rules() -> None:
    assert f"SUCCESS: {len(alerts())} rules found" in promtool("check", "rules", "alerts.yml")


def test_each_rule_fires_when_it_should_and_none_on_a_quiet_day() -> None:
    tested = (RULES / "alerts_test.yml").read_text(encoding="utf-8")
    assert re.findall(r"- name: (Presence\w+)", tested) == alerts()
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")


def test_promtool_takes_the_queries_of_the_page(tmp_path: Path) -> None:
    rules = "".join(
        f"  - record: query:{number}\n    expr: {query}\n" for number, query in enumerate(queries())
    )
    (tmp_path / "queries.yml").write_text(f"groups:\n- name: queries\n  rules:\n{rules}", encoding="utf-8")
    assert f"{len(queries())} rules found" in promtool("check", "rules", "queries.yml", folder=tmp_path)


def test_promtool_takes_the_scrape_configuration_of_the_page(tmp_path: Path) -> None:
    (configuration,) = (block for language, block in code(PAGE) if language == "yaml")
    key = tmp_path / "key"
    key.write_text("a-metrics-key", encoding="utf-8")
    (tmp_path / "alerts.yml").write_text(ALERTS, encoding="utf-8")
    file = tmp_path / "prometheus.yml"
    file.write_text(configuration.replace("/etc/prometheus/presence-metrics-key", str(key)), encoding="utf-8")
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml", folder=tmp_path)
