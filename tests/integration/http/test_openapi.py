"""The API is what its document says: the document is valid, true to the server, and schemathesis finds nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
from openapi_spec_validator import validate

from tests.conftest import TEST_API_KEY, Serve, SpawnedServer, SpawnServer

HERE = Path(__file__).parent
BY_KEY = {"Authorization": f"Bearer {TEST_API_KEY}"}
BRIEF = ("--seed", "1", "--generation-deterministic", "--max-examples", "5")
LONG = "300"
Json = dict[str, Any]


@pytest.fixture
async def http(serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    """Anybody, without a credential."""
    node = await serve()
    async with httpx.AsyncClient(base_url=node.url, trust_env=False) as client:
        yield client


@pytest.fixture
async def document(http: httpx.AsyncClient) -> Json:
    """What the server says of itself."""
    return dict((await http.get("/openapi.json")).raise_for_status().json())


def operations(document: Json) -> Iterator[Json]:
    for path in document["paths"].values():
        yield from path.values()


def test_the_document_is_valid_openapi_3_1(document: Json) -> None:
    assert document["openapi"].startswith("3.1.")
    validate(document)


def test_every_operation_has_an_id_of_its_own_a_summary_and_says_who_may_call_it(document: Json) -> None:
    ids = [each["operationId"] for each in operations(document)]
    assert len(ids) == len(set(ids)) > 30
    for each in operations(document):
        assert each["summary"].endswith("."), each["operationId"]
        assert "security" in each


def test_every_query_parameter_is_described(document: Json) -> None:
    for each in operations(document):
        for parameter in each.get("parameters", ()):
            assert parameter.get("description"), f"{each['operationId']}: {parameter['name']}"


def test_errors_are_problem_details_with_their_codes(document: Json) -> None:
    for name, response in document["components"]["responses"].items():
        (content,) = response["content"].items()
        assert content[0] == "application/problem+json", name
        assert "- `" in response["description"], name
    assert document["paths"]["/v1/sessions"]["post"]["responses"].keys() >= {"401", "403", "409", "422"}


def test_every_json_body_has_an_example_that_fits_it(document: Json) -> None:
    for each in operations(document):
        for where, medium in _media(each, document):
            assert "example" in medium, f"{each['operationId']} {where} has no example"
            schema = {**medium["schema"], "components": document["components"]}
            jsonschema_rs.validate(schema, medium["example"])


def _media(operation: Json, document: Json) -> Iterator[tuple[str, Json]]:
    parts = {"body": operation.get("requestBody", {}), **operation["responses"]}
    for where, part in parts.items():
        named = part.get("$ref", "").rpartition("/")[2]
        content = (document["components"]["responses"][named] if named else part).get("content", {})
        for media_type, medium in content.items():
            if media_type.endswith("json") and "$ref" in medium["schema"]:
                yield where, medium


async def test_the_document_is_sent_once(http: httpx.AsyncClient) -> None:
    for path in ("/openapi.json", "/protocol.json"):
        first = await http.get(path)
        assert first.headers["access-control-allow-origin"] == "*"
        again = await http.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


def schemathesis(server: SpawnedServer, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Let it loose on `server`, with one session whose token it has, and one that may end."""
    anna, ben = (_opened(server, user) for user in ("whose-token", "who-may-end"))
    environment = {
        "API_KEY": TEST_API_KEY,
        "SESSION_TOKEN": anna["token"],
        "SESSION_ID": anna["session_id"],
        "OTHER_SESSION_ID": ben["session_id"],
    }
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file"]
    command += [str(HERE / "schemathesis.toml"), "run", f"{server.url}/openapi.json", *arguments]
    return subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def _opened(server: SpawnedServer, user_id: str) -> Json:
    answer = httpx.post(f"{server.url}/v1/sessions", json={"user_id": user_id}, headers=BY_KEY)
    return dict(answer.raise_for_status().json())


@pytest.mark.timeout(300)  # it takes 15 s on a machine that is idle
def test_schemathesis_finds_nothing(spawn_server: SpawnServer, database_url: str, tmp_path: Path) -> None:
    done = schemathesis(spawn_server(DATABASE_URL=database_url), tmp_path, *BRIEF)
    print(done.stdout)
    assert done.returncode == 0, done.stderr


@pytest.mark.soak
def test_schemathesis_finds_nothing_however_long_it_looks(
    spawn_server: SpawnServer, database_url: str, tmp_path: Path
) -> None:
    done = schemathesis(spawn_server(DATABASE_URL=database_url), tmp_path, "--max-examples", LONG)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
