"""schemathesis over the OpenAPI description, against the API as a process: nothing that it makes up, right or wrong,
is a fault of ours, and every answer is one that the description promises.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from jobs import keys
from jobs.agents import AgentCatalogue, Published
from tests.api.conftest import ADMIN, ECHO, client_of, until_ready
from tests.api.test_isolation import theirs
from tests.api.test_process import command, environment

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
LEFT_OUT = {
    "PUT /v1/kill_switch": "once it is on, 503 is the right answer to the rest",
    "PUT /v1/limits": "once there are some, 429 is the right answer to the rest",
}
AUTHORIZED = {"Authorization": f"Bearer {ADMIN}"}


@dataclass
class Running:
    """The process under test: where it listens, what there is in it, and where its log goes."""

    url: str
    ids: dict[str, str]
    log: Path


@pytest.fixture
async def running(redis_url, port, tmp_path, worker, link, embedded_server) -> AsyncIterator[Running]:
    await AgentCatalogue(link).publish([Published("echo", "v1", {**ECHO.definition, "model": "claude-sonnet-5-5"})])
    log = tmp_path / "api.log"
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as stderr:
        qdrant = {"NIGHTSHIFT_QDRANT_URL": embedded_server.url, "NIGHTSHIFT_QDRANT_API_KEY": embedded_server.api_key}
        where = environment(redis_url, port, tmp_path / "data", **qdrant)
        process = await asyncio.create_subprocess_exec(*command(), env=where, stderr=stderr)
    try:
        async with client_of(url) as client:
            await until_ready(client)
            yield Running(url, await theirs(client, worker, link), log)
    finally:
        process.terminate()
        await process.wait()


def fuzz(running: Running, examples: int) -> int:
    """Sends up to so many right requests, and as many wrong ones, to every operation; how many it sent."""
    sent, failures = 0, list[str]()
    session = requests.Session()
    schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        if operation.label in LEFT_OUT:
            continue
        for mode in GenerationMode:

            @given(case=operation.as_strategy(mode), of_ours=st.booleans())
            @settings(
                max_examples=examples,
                deadline=None,
                derandomize=True,
                database=None,
                phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
            )
            def send(case: Case, of_ours: bool) -> None:
                nonlocal sent
                sent += 1
                if of_ours:
                    _name_what_there_is(case, running.ids)
                case.call_and_validate(running.url, session, AUTHORIZED, CHECKS, timeout=40)

            try:
                send()
            except Unsatisfiable:
                pass  # nothing can be wrong about it
            except (FailureGroup, requests.RequestException) as exc:
                failures.append(f"{operation.label}: {exc}")
    if failures:
        raise AssertionError("\n\n".join(failures))
    return sent


def _name_what_there_is(case: Case, ids: dict[str, str]) -> None:
    for name in case.path_parameters or {}:
        case.path_parameters[name] = ids.get(name, case.path_parameters[name])
    if "wait" in (case.query or {}):
        case.query["wait"] = 0
    if isinstance(case.body, dict) and "agent" in case.body and case.path != "/v1/run":  # which would wait for it
        case.body["agent"] = "echo"


async def assert_sound(running: Running, examples: int) -> None:
    sent = await asyncio.to_thread(fuzz, running, examples)
    assert sent > 100 * examples
    log = running.log.read_text()
    assert "request failed" not in log
    assert ADMIN not in log


@pytest.mark.timeout(180)
async def test_what_is_made_up_of_the_description_is_answered_as_described(running):
    await assert_sound(running, 2)


@pytest.mark.chaos
async def test_much_of_it_is_too(running):
    await assert_sound(running, 50)


async def test_a_crash_has_no_secret_in_its_log(running, link):
    await link.command("HSET", keys.job(running.ids["job_id"]), "spec", "not JSON")
    async with client_of(running.url) as client:
        answer = await client.get(f"/v1/jobs/{running.ids['job_id']}")
    assert answer.status_code == 500
    log = running.log.read_text()
    assert answer.headers["x-request-id"] in log
    assert "Traceback" in log
    assert ADMIN not in log
