"""Webhook endpoints from the command line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook

from agent_core.egress import Egress
from agent_core.redaction import Redactor
from api.settings import Settings
from jobs.link import RedisLink
from jobs.stats import Stats
from tests.api.conftest import ADMIN, serving
from tests.cli.conftest import Cli
from tests.cli.harness import Result
from tests.receiver import Receiver
from worker.webhooks import Dispatcher


@pytest.fixture
async def run(redis_url: str, link: RedisLink, tmp_path, monkeypatch, cli: Cli) -> AsyncIterator[object]:
    """Runs commands against an API, with a worker's dispatcher beside it."""
    given = {"redis_url": redis_url, "port": 0, "data_dir": tmp_path, "webhook_allow_private": True}
    dispatcher = asyncio.create_task(Dispatcher(link, Redactor(), Stats(), Egress(allow_private=True)).run())
    async with serving(Settings(admin_key=SecretStr(ADMIN), **given)) as url:
        monkeypatch.setenv("NIGHTSHIFT_URL", url)
        monkeypatch.setenv("NIGHTSHIFT_API_KEY", ADMIN)

        async def words(*given: str) -> Result:
            return await asyncio.to_thread(cli, *given)

        yield words
    dispatcher.cancel()
    await asyncio.gather(dispatcher, return_exceptions=True)


async def test_an_endpoint_is_made_tried_and_removed(run, receiver: Receiver):
    added = await run("webhooks", "add", receiver.url, "--event", "job.completed", "--description", "shop")
    secret = added.out.strip()
    endpoint = added.err.split()[0]
    assert (added.status, secret[:6], endpoint[:4]) == (0, "whsec_", "whk_")
    tried = await run("webhooks", "test", endpoint)
    assert (tried.status, tried.out[:24]) == (0, "delivered: answered 200 ")
    (got,) = receiver.take()
    assert Webhook(secret).verify(got.body, got.headers)["type"] == "webhook.test"
    receiver.say(500)
    failed = await run("webhooks", "test", endpoint)
    assert (failed.status, failed.out[:28]) == (1, "not delivered: answered 500 ")
    listed = (await run("webhooks")).out
    assert endpoint in listed
    assert "failing since" in listed
    fresh = (await run("webhooks", "rotate-secret", endpoint, "--overlap", "0")).out.strip()
    assert fresh not in ("", secret)
    changed = (await run("webhooks", "change", endpoint, "--disable", "--json")).json
    assert (changed["enabled"], changed["events"], changed["description"]) == (False, ["job.completed"], "shop")
    assert "by_request" in (await run("webhooks", "show", endpoint)).out
    assert (await run("webhooks", "remove", endpoint)).out.strip() == f"{endpoint} removed"
    assert (await run("webhooks", "show", endpoint)).status == 2


async def test_deliveries_are_listed_and_made_again(run, receiver: Receiver):
    endpoint = (await run("webhooks", "add", receiver.url, "--json")).json["id"]
    delivery = (await run("webhooks", "test", endpoint, "--json")).json["id"]
    page = (await run("webhooks", "deliveries", endpoint, "--json")).json
    assert [one["id"] for one in page["data"]] == [delivery]
    assert delivery in (await run("webhooks", "deliveries", endpoint, "--status", "delivered")).out
    assert (await run("webhooks", "redeliver", endpoint, delivery)).out.strip() == f"{delivery} is delivered again"
    again = await run("webhooks", "redeliver", endpoint, "--since", "2026-01-01T00:00:00Z")
    assert again.status == 0
    for _ in range(2):
        assert await asyncio.to_thread(receiver.arrived.acquire, timeout=10)
    assert {one.headers["webhook-id"] for one in receiver.received} == {delivery}
    wrong = await run("webhooks", "redeliver", endpoint)
    assert (wrong.status, "either a delivery or a time" in wrong.err) == (2, True)
