"""Minutes, or with SOAK_S hours, of traffic while Postgres and Redis do all they can: the table ends as the truth."""

from __future__ import annotations

import os

import pytest

from server.embedded import EmbeddedPostgres
from tests.conftest import ServedNode
from tests.contract.persistence_model import LiveModel
from tests.contract.test_persistence_faults import Storm, stormy_for
from tests.contract.test_persistence_faults import live as live  # noqa: PLC0414 - the fixture
from tests.contract.test_persistence_faults import url as url  # noqa: PLC0414 - the fixture
from tests.integration.test_wiped_under_flush import apis as apis  # noqa: PLC0414 - the fixture
from tests.integration.test_wiped_under_flush import nodes as nodes  # noqa: PLC0414 - the fixture
from tests.integration.test_wiped_under_flush import wiped_for
from tests.node_api import NodeApi

SOAK_S = float(os.environ.get("SOAK_S", "240"))

pytestmark = [pytest.mark.soak, pytest.mark.timeout(SOAK_S + 300)]


async def test_after_a_long_storm_of_every_fault_the_table_is_the_truth(
    own_postgres: EmbeddedPostgres, url: str, live: LiveModel
) -> None:
    await stormy_for(SOAK_S, Storm(live, own_postgres, url, seed=51), url)


async def test_though_redis_is_wiped_a_hundred_times_the_table_ends_as_the_truth(
    nodes: list[ServedNode], apis: list[NodeApi], redis_url: str, database_url: str
) -> None:
    await wiped_for(SOAK_S, 52, nodes=nodes, apis=apis, redis_url=redis_url, database_url=database_url)
