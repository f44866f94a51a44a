"""Health, metrics, the OpenAPI description, and what happens when Redis is not well."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from api.settings import Settings
from jobs import stats
from jobs.agents import AgentCatalogue
from jobs.breaker import FleetBreakers, Rules
from jobs.link import RedisLink, connect
from tests.api.conftest import ADMIN, ECHO, client_of, serving, submitted
from tests.redis_server import RedisServer

BODY = {"agent": "echo", "input": "x"}


@pytest.fixture
async def harmed(own_redis: RedisServer, tmp_path: Path):
    """A client of an API on that Redis."""
    link = RedisLink(connect(own_redis.url))
    await AgentCatalogue(link).publish([ECHO])
    await link.aclose()
    settings = Settings(redis_url=own_redis.url, port=0, data_dir=tmp_path, admin_key=SecretStr(ADMIN))
    async with serving(settings) as url, client_of(url) as client:
        yield client


async def test_the_process_is_alive_and_ready(url):
    async with client_of(url, None) as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize("harm", [signal.SIGSTOP, signal.SIGKILL])
async def test_without_redis_everything_but_life_is_503_at_once_and_comes_back(harmed, own_redis, harm):
    assert (await harmed.post("/v1/jobs", json=BODY)).status_code == 202
    if harm == signal.SIGKILL:
        own_redis.kill()
    else:
        own_redis.signal(harm)
    for method, path in (("POST", "/v1/jobs"), ("GET", "/v1/jobs"), ("GET", "/readyz"), ("GET", "/metrics")):
        started = time.monotonic()
        answer = await harmed.request(method, path, json=BODY if method == "POST" else None)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), path
        assert int(answer.headers["retry-after"]) > 0
        assert time.monotonic() - started < 10
    assert (await harmed.get("/healthz")).status_code == 200
    if harm == signal.SIGKILL:
        own_redis.start()
    else:
        own_redis.signal(signal.SIGCONT)
    while (await harmed.get("/readyz")).status_code != 200:
        pass
    assert (await harmed.get("/v1/jobs")).status_code == 200


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"maxmemory-policy": "allkeys-lru"}, "storage_evicts"),
        ({"maxmemory": "1mb"}, "storage_full"),
        ({"min-replicas-to-write": "1"}, "storage_read_only"),
    ],
)
async def test_a_redis_that_must_not_be_given_jobs_is_not_given_any(harmed, own_redis, options, code):
    with redis.Redis.from_url(own_redis.url) as client:
        for name, value in options.items():
            client.config_set(name, value)
        ready = await harmed.get("/readyz")
        assert (ready.status_code, ready.json()["code"]) == (503, code)
        before = set(client.keys("*"))
        answer = await harmed.post("/v1/jobs", json=BODY)
        assert (answer.status_code, answer.json()["code"]) == (503, code)
        assert set(client.keys("*")) == before
        for name in options:
            client.config_set(name, {"maxmemory-policy": "noeviction"}.get(name, "0"))
    assert (await harmed.get("/readyz")).status_code == 200
    assert (await harmed.post("/v1/jobs", json=BODY)).status_code == 202


async def test_metrics_are_the_fleets(api, echo, worker, link):
    await submitted(api)
    await worker.run()
    await submitted(api)
    await worker.claim()
    await submitted(api, priority="high")
    counts = stats.Stats()
    counts.add("tokens_total", "claude", "input", amount=3)
    counts.add("fenced_total")
    for seconds in (0.0, 0.02, 7, 10_000):
        counts.observe("queue_wait_seconds", seconds)
    await counts.flush(link)
    text = (await api.get("/metrics", headers={"Authorization": ""})).text
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["nightshift_jobs_total", "echo", "completed"] == 1
    assert samples["nightshift_tokens_total", "input", "claude"] == 3
    assert samples["nightshift_fenced_total",] == 1
    assert samples["nightshift_queue_depth", "default.high"] == 1
    assert samples["nightshift_running_jobs",] == 1
    bounds = [str(float(bound)) for bound in stats.BUCKETS["queue_wait_seconds"]]
    buckets = [samples["nightshift_queue_wait_seconds_bucket", bound] for bound in [*bounds, "+Inf"]]
    assert buckets == [1, 2, 2, 2, 2, 3, 3, 3, 4]
    assert samples["nightshift_queue_wait_seconds_count",] == 4
    assert samples["nightshift_queue_wait_seconds_sum",] == pytest.approx(10_007.02)


async def test_metrics_show_which_circuit_breakers_are_open(api, link):
    breakers = FleetBreakers(link, Rules(failures=1))
    await breakers.report("claude@first", ok=False, code="overloaded")
    text = (await api.get("/metrics", headers={"Authorization": ""})).text
    assert 'nightshift_breaker_open{target="claude@first"} 1.0' in text


async def test_metrics_can_be_switched_off(settings):
    async with serving(settings.model_copy(update={"metrics": False})) as url, client_of(url) as client:
        assert (await client.get("/metrics")).status_code == 404


async def test_agents_are_shown_as_they_were_published(api, echo, link):
    newer = type(ECHO)("echo", "v2", {**ECHO.definition, "description": "newer"})
    await AgentCatalogue(link).publish([newer])
    (listed,) = (await api.get("/v1/agents")).json()["data"]
    assert (listed["name"], listed["version"], listed["description"]) == ("echo", "v2", "newer")
    shown = (await api.get("/v1/agents/echo")).json()
    assert shown["definition"] == newer.definition
    versions = (await api.get("/v1/agents/echo/versions")).json()["data"]
    assert {version["version"]: version["current"] for version in versions} == {"v1": False, "v2": True}
    assert (await api.get("/v1/agents/nobody")).status_code == 404


async def test_an_unknown_route_and_a_wrong_method_are_problems(api):
    for method, path, status in (("GET", "/v1/nothing", 404), ("PUT", "/v1/jobs", 405), ("DELETE", "/healthz", 405)):
        answer = await api.request(method, path)
        assert answer.status_code == answer.json()["status"] == status
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_crash_is_a_problem_without_its_cause(api, echo, link):
    job = await submitted(api)
    await link.command("HSET", f"ns:job:{job['id']}", "spec", "not JSON: secret")
    answer = await api.get(f"/v1/jobs/{job['id']}")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text
    assert (await api.get("/v1/jobs")).json()["data"] == []


async def test_the_description_names_every_answer_and_every_reference_in_it_leads_somewhere(api):
    description = (await api.get("/openapi.json")).json()
    assert description["components"]["securitySchemes"]["api_key"]["scheme"] == "bearer"
    text = json.dumps(description)
    schemas = description["components"]["schemas"]
    references = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert references <= set(schemas)
    operations = {
        (method, path): operation for path, item in description["paths"].items() for method, operation in item.items()
    }
    assert len(operations) >= 23
    for (method, path), operation in operations.items():
        assert "application/problem+json" in operation["responses"]["default"]["content"], path
        assert bool(operation.get("security")) == path.startswith("/v1"), path
        names = [parameter["name"] for parameter in operation.get("parameters", [])]
        assert ("Idempotency-Key" in names) == (method == "post"), path


async def test_a_job_has_the_fields_that_the_description_promises(api, echo):
    description = (await api.get("/openapi.json")).json()
    job = await submitted(api)
    assert set(description["components"]["schemas"]["JobView"]["properties"]) == set(job)
