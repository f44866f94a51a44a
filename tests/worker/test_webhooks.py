"""What arrives at real receivers, and what becomes of what does not."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from agent_core.egress import Egress, Reply
from agent_core.redaction import Redactor
from jobs import keys, outbox
from jobs.deliveries import MOST_OF_A_LANE, Deliveries, Delivery
from jobs.errors import ConflictError
from jobs.files import FileStore
from jobs.link import RedisLink
from jobs.listing import list_deliveries
from jobs.retention import Retention
from jobs.stats import Stats
from jobs.store import JobStore
from jobs.webhooks import JOBS, MOST_ENDPOINTS, Endpoint, Webhooks
from tests.agent_core.toolbox.test_egress import FORBIDDEN
from tests.agent_core.toolbox.web import Names, dials
from tests.jobs.driver import TENANT, Driver
from tests.receiver import Answer, Receiver
from worker.webhooks import FIRST_BYTES, JITTER, RETRY_SECONDS, Dispatcher, verdict

SECRET = "whsec_" + base64.b64encode(b"secret of a test, 32 bytes long.").decode()
ONE = ["job.completed"]
BLANK = Reply(500, httpx2.Headers(), b"")


class Post:
    """A tenant's endpoints, jobs that end, and the dispatcher between them."""

    def __init__(self, link: RedisLink, store: JobStore) -> None:
        self.link = link
        self.driver = Driver(store)
        self.webhooks = Webhooks(link)
        self.deliveries = Deliveries(link)
        self.stats = Stats()

    def dispatcher(self, egress: Egress | None = None, secrets: tuple[str, ...] = (), most: int = 100) -> Dispatcher:
        way = egress or Egress(allow_private=True, seconds=5)
        return Dispatcher(self.link, Redactor(secrets), self.stats, way, most)

    async def endpoint(self, url: str, events: list[str] | None = None) -> Endpoint:
        return await self.webhooks.create(TENANT, url, events or ONE, None, SECRET)

    async def complete(self, **spec: Any) -> str:
        job, attempt = await self.driver.start(**spec)
        await self.driver.end(job, attempt, "complete", {"output": "done"})
        return job.id

    async def all(self, endpoint: Endpoint) -> list[Delivery]:
        """The endpoint's deliveries, the oldest first."""
        return list(reversed((await list_deliveries(self.link, endpoint, limit=200))[0]))

    async def one(self, endpoint: Endpoint) -> Delivery:
        (found,) = await self.all(endpoint)
        return found

    async def hasten(self) -> None:
        """Makes everything due now that waits for its next try."""
        for raw in await self.link.command("KEYS", f"{keys.LANE_PREFIX}*"):
            for delivery_id in await self.link.command("ZRANGE", raw, 0, -1):
                await self.link.command("ZADD", raw, 0, delivery_id)
            await self.link.command("ZADD", keys.LANES, 0, raw.decode().removeprefix(keys.LANE_PREFIX))

    async def now(self) -> int:
        seconds, micros = await self.link.command("TIME")
        return int(seconds) * 1000 + int(micros) // 1000


@pytest.fixture
def post(link: RedisLink, store: JobStore) -> Post:
    return Post(link, store)


# ---- what arrives


async def test_it_is_signed_as_standard_webhooks_says(post: Post, receiver: Receiver) -> None:
    endpoint = await post.endpoint(f"{receiver.url}/hook?x=1")
    job_id = await post.complete()
    assert await post.dispatcher().sweep() == 1
    (got,) = receiver.take()
    delivery = await post.one(endpoint)
    assert (got.path, got.headers["webhook-id"], delivery.status) == ("/hook?x=1", delivery.id, "delivered")
    event = Webhook(SECRET).verify(got.body, got.headers)
    assert (event["type"], event["data"]["job_id"], event["data"]["sequence"]) == ("job.completed", job_id, 1)
    assert set(event) == {"type", "timestamp", "data"}
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(got.body.replace(b"completed", b"failed"), got.headers)
    (tried,) = delivery.log
    assert (tried["status"], tried["body"], tried["error"]) == (200, "ok", None)
    assert delivery.to_json()["request"] == event
    assert await post.dispatcher().sweep() == 0


async def test_the_same_id_and_the_same_bytes_come_again_until_it_is_taken(post: Post, receiver: Receiver) -> None:
    endpoint = await post.endpoint(receiver.url)
    await post.complete()
    receiver.say(500, 302, 404)
    for status in ("pending", "pending", "pending", "delivered"):
        await post.hasten()
        assert await post.dispatcher().sweep() == 1
        assert (await post.one(endpoint)).status == status
    got = receiver.take()
    assert len({(one.headers["webhook-id"], one.body) for one in got}) == 1
    assert [tried["status"] for tried in (await post.one(endpoint)).log] == [500, 302, 404, 200]
    for one in got:
        Webhook(SECRET).verify(one.body, one.headers)


async def test_the_schedule() -> None:
    for tries, seconds in enumerate(RETRY_SECONDS):
        result, again = verdict(None, tries)
        assert result == "failed"
        assert seconds * (1 - JITTER) <= again <= seconds * (1 + JITTER)
    assert verdict(BLANK, len(RETRY_SECONDS)) == ("failed", 0.0)
    assert RETRY_SECONDS == (5, 30, 120, 600, 1800, 7200, 28_800, 86_400)
    assert len({verdict(None, 3) for _ in range(20)}) > 1, "there is no jitter"


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("60", 60, 60),
        ("1", 4, 6),
        ("99999999", 3600, 3600),
        ("soon", 4, 6),
        ("-5", 4, 6),
        ("", 4, 6),
        ("1e999", 3600, 3600),
    ],
)
async def test_a_retry_after_is_honoured_up_to_an_hour(said: str, least: float, most: float) -> None:
    _, again = verdict(Reply(503, httpx2.Headers({"retry-after": said}), b""), 0)
    assert least <= again <= most


async def test_a_retry_after_may_be_a_date() -> None:
    when = (datetime.now(UTC) + timedelta(minutes=10)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    _, again = verdict(Reply(429, httpx2.Headers({"retry-after": when}), b""), 0)
    assert 590 < again <= 600


async def test_it_is_given_up_after_the_last_try(post: Post, receiver: Receiver) -> None:
    endpoint = await post.endpoint(receiver.url)
    await post.complete()
    receiver.say(*[500] * (len(RETRY_SECONDS) + 1))
    for _ in range(len(RETRY_SECONDS) + 1):
        await post.hasten()
        assert await post.dispatcher().sweep() == 1
    await post.hasten()
    assert await post.dispatcher().sweep() == 0
    assert (await post.one(endpoint)).status == "failed"
    assert post.stats.take() == {
        "webhook_deliveries_total|failed": len(RETRY_SECONDS) + 1, "webhook_deliveries_total|given_up": 1
    }  # fmt: skip


# ---- endpoints that want no more


async def test_gone_disables_and_the_others_are_told(post: Post, receiver: Receiver) -> None:
    endpoint, witness = await post.endpoint(receiver.url), await post.endpoint(receiver.url, [outbox.DISABLED])
    await post.complete()
    await post.complete()
    receiver.say(410)
    await post.dispatcher(most=1).sweep()
    found = await post.webhooks.get(TENANT, endpoint.id)
    assert (found.enabled, found.disabled_reason) == (False, "gone")
    receiver.take()
    await post.dispatcher().sweep()
    assert [one.status for one in await post.all(endpoint)] == ["failed", "dropped"]
    (got,) = receiver.take()
    assert got.json["type"] == outbox.DISABLED
    assert got.json["data"] == {"endpoint_id": endpoint.id, "reason": "gone", "sequence": 1}
    await post.complete()
    assert len(await post.all(endpoint)) == 2
    assert (await post.one(witness)).status == "delivered"


@pytest.mark.parametrize(("days", "enabled"), [(4.9, True), (5.1, False)])
async def test_five_days_of_failure_disable(post: Post, receiver: Receiver, days: float, enabled: bool) -> None:
    endpoint = await post.endpoint(receiver.url)
    await post.complete()
    receiver.say(500, 500)
    await post.dispatcher().sweep()
    failing = (await post.webhooks.get(TENANT, endpoint.id)).failing_ms
    assert failing is not None
    await post.link.command("HSET", keys.endpoint(endpoint.id), "failing_ms", failing - int(days * 86_400_000))
    await post.hasten()
    await post.dispatcher().sweep()
    found = await post.webhooks.get(TENANT, endpoint.id)
    assert (found.enabled, found.disabled_reason) == (enabled, None if enabled else "failing")
    if not enabled:
        with pytest.raises(ConflictError, match="disabled"):
            await post.deliveries.test(found)
    fresh = await post.webhooks.change(TENANT, endpoint.id, {"enabled": True})
    assert (fresh.enabled, fresh.failing_ms, fresh.disabled_reason) == (True, None, None)


async def test_one_that_arrives_ends_the_failure(post: Post, receiver: Receiver) -> None:
    endpoint = await post.endpoint(receiver.url)
    await post.complete()
    receiver.say(500)
    for failing in (True, False):
        await post.hasten()
        await post.dispatcher().sweep()
        assert ((await post.webhooks.get(TENANT, endpoint.id)).failing_ms is not None) is failing


async def test_gone_ends_the_webhook_of_one_job_alone(post: Post, receiver: Receiver) -> None:
    hook = {"url": receiver.url, "events": None}
    job, attempt = await post.driver.start(webhook=hook)
    receiver.say(410)
    await post.dispatcher(most=1).sweep()
    await post.driver.end(job, attempt, "complete", {"output": "done"})
    await post.complete(webhook=hook)
    await post.dispatcher().sweep()
    statuses = [(one.type, one.status) for one in await post.all(await post.webhooks.get(TENANT, JOBS))]
    assert statuses[:2] == [("job.queued", "failed"), ("job.started", "dropped")]
    assert [status for _, status in statuses[2:]] == ["delivered"] * 3


# ---- secrets


async def test_a_new_secret_signs_beside_the_one_before(post: Post, receiver: Receiver) -> None:
    endpoint = await post.endpoint(receiver.url)
    fresh, last = (f"whsec_{base64.b64encode(bytes([n]) * 32).decode()}" for n in (1, 2))
    await post.webhooks.rotate(endpoint, fresh)
    assert await post.webhooks.signing(endpoint.owner) == [fresh, SECRET]
    await post.complete()
    await post.dispatcher().sweep()
    (got,) = receiver.take()
    for secret in (SECRET, fresh):
        Webhook(secret).verify(got.body, got.headers)
    await post.webhooks.rotate(endpoint, last, 0)
    assert await post.webhooks.signing(endpoint.owner) == [last]
    await post.complete()
    await post.dispatcher().sweep()
    (got,) = receiver.take()
    Webhook(last).verify(got.body, got.headers)
    for secret in (SECRET, fresh):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(got.body, got.headers)


async def test_the_webhooks_of_jobs_have_a_secret_of_their_tenant(post: Post, receiver: Receiver) -> None:
    await post.complete(webhook={"url": receiver.url, "events": ONE})
    await post.dispatcher().sweep()
    of_jobs = await post.webhooks.get(TENANT, JOBS)
    (secret,) = await post.webhooks.signing(of_jobs.owner)
    (got,) = receiver.take()
    Webhook(secret).verify(got.body, got.headers)
    assert await post.webhooks.signing("jobs:other") != [secret]


# ---- receivers that are slow, endless or forbidden


async def test_a_receiver_that_says_nothing_is_cut_off(post: Post, receiver: Receiver) -> None:
    endpoint = await post.endpoint(receiver.url)
    await post.complete()
    receiver.silent.set()
    await post.dispatcher(Egress(allow_private=True, seconds=0.2)).sweep()
    (tried,) = (await post.one(endpoint)).log
    assert tried["status"] is None
    assert "did not answer in full within 0.2 seconds" in tried["error"]


@pytest.fixture
def endless() -> Iterator[str]:
    """A server whose every answer is 200 and never ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                try:
                    while not over.is_set():
                        connection.sendall(b"x" * 1000)
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        over.set()
        thread.join(5)


async def test_an_answer_that_never_ends_is_read_no_further_than_needed(post: Post, endless: str) -> None:
    endpoint = await post.endpoint(endless)
    await post.complete()
    await post.dispatcher().sweep()
    delivery = await post.one(endpoint)
    assert (delivery.status, delivery.log[0]["body"]) == ("delivered", "x" * FIRST_BYTES)


async def test_nothing_forbidden_is_dialled(post: Post) -> None:
    urls = [url for url in FORBIDDEN if url]
    for url in urls[:MOST_ENDPOINTS]:
        await post.endpoint(url)
    job_urls = [url for url in urls[MOST_ENDPOINTS:] if url.startswith("http") and "[::1/" not in url]
    await post.complete()
    for _ in job_urls:
        await post.complete(webhook={"url": "http://example.com/", "events": ONE})
    specs = iter(job_urls)
    for raw in await post.link.command("ZRANGE", keys.deliveries(f"jobs:{TENANT}"), 0, -1):
        delivery = (await post.deliveries.get_many([raw.decode()]))[0]
        assert delivery is not None
        spec = json.loads(await post.link.command("HGET", keys.job(delivery.job_id), "spec"))
        spec["webhook"]["url"] = next(specs)
        await post.link.command("HSET", keys.job(delivery.job_id), "spec", json.dumps(spec))
    with dials() as seen:
        while await post.dispatcher(Egress()).sweep():
            pass
    assert [dial for dial in seen if dial[0] != "socket.getaddrinfo"] == []
    for endpoint in [*await post.webhooks.all(TENANT), await post.webhooks.get(TENANT, JOBS)]:
        for delivery in await post.all(endpoint):
            assert "is refused: " in delivery.log[0]["error"]
    assert len(urls) >= 117


async def test_a_name_that_changes_its_mind_gains_nothing(post: Post, receiver: Receiver) -> None:
    port = receiver.url.rpartition(":")[2]
    await post.endpoint(f"http://evil.example:{port}/")
    await post.complete()
    names = Names(evil_example=[["127.0.0.1"], ["169.254.169.254"]])
    egress = Egress(allow=(f"evil.example:{port}",), resolve=names)
    with dials() as seen:
        await post.dispatcher(egress).sweep()
    assert (seen, receiver.take()) == ([], [])


async def test_redirects_are_not_followed(post: Post, receiver: Receiver) -> None:
    endpoint = await post.endpoint(receiver.url)
    await post.complete()
    receiver.answers.append(Answer(307, (("location", f"{receiver.url}/elsewhere"),)))
    await post.dispatcher().sweep()
    assert [one.path for one in receiver.take()] == ["/"]
    assert (await post.one(endpoint)).status == "pending"


# ---- neighbours


async def test_one_that_hangs_delays_no_other(post: Post, receiver: Receiver) -> None:
    hangs = Receiver()
    hangs.silent.set()
    try:
        slow, quick = await post.endpoint(hangs.url), await post.endpoint(receiver.url)
        for _ in range(MOST_OF_A_LANE + 5):
            await post.complete()
        running = asyncio.create_task(post.dispatcher(Egress(allow_private=True, seconds=30), most=20).run())
        async with asyncio.timeout(20):
            while len(hangs.received) < MOST_OF_A_LANE or {one.status for one in await post.all(quick)} != {
                "delivered"
            }:
                assert not running.done()
                await asyncio.sleep(0.01)
        assert len(hangs.received) == MOST_OF_A_LANE
        assert {one.status for one in await post.all(slow)} == {"pending"}
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    finally:
        hangs.close()


# ---- workers that die


async def test_what_a_dead_worker_left_is_made_again_with_the_same_id(post: Post, receiver: Receiver) -> None:
    endpoint = await post.endpoint(receiver.url)
    await post.complete()
    (lost,) = await post.deliveries.claim(10, 0.001)
    await asyncio.sleep(0.005)
    await post.dispatcher().sweep()
    (got,) = receiver.take()
    assert got.headers["webhook-id"] == lost.delivery.id
    assert await post.deliveries.settle(lost, "failed", again_ms=5) is None
    assert (await post.one(endpoint)).status == "delivered"


async def test_a_worker_that_stops_gives_back_what_it_was_at(post: Post, receiver: Receiver) -> None:
    endpoint = await post.endpoint(receiver.url)
    await post.complete()
    receiver.silent.set()
    running = asyncio.create_task(post.dispatcher().run())
    assert await asyncio.to_thread(receiver.arrived.acquire, timeout=10)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    delivery = await post.one(endpoint)
    assert (delivery.status, delivery.tries, delivery.log) == ("pending", 0, ())
    assert (await post.webhooks.get(TENANT, endpoint.id)).failing_ms is None
    receiver.silent.clear()
    await post.hasten()
    assert await post.dispatcher().sweep() == 1
    assert len({one.headers["webhook-id"] for one in receiver.take()}) == 1


async def test_a_claim_that_has_lapsed_settles_nothing(post: Post) -> None:
    endpoint = await post.endpoint("http://127.0.0.1/")
    await post.complete()
    (lost,) = await post.deliveries.claim(10, 0.001)
    await asyncio.sleep(0.005)
    (held,) = await post.deliveries.claim(10, 60)
    assert await post.deliveries.settle(lost, "failed", again_ms=5) is None
    assert (await post.one(endpoint)).log == ()
    assert await post.deliveries.claim(10, 60) == []
    assert await post.deliveries.settle(held, "delivered") is not None


async def test_a_live_claim_is_nobody_elses(post: Post) -> None:
    await post.endpoint("http://127.0.0.1/")
    await post.complete()
    assert len(await post.deliveries.claim(10, 60)) == 1
    assert await post.deliveries.claim(10, 60) == []
    assert await post.deliveries.depth() == 1


# ---- by request


async def test_redelivery_of_one_and_of_all_since(post: Post, receiver: Receiver) -> None:
    endpoint = await post.endpoint(receiver.url)
    await post.complete()
    await post.dispatcher().sweep()
    first = await post.one(endpoint)
    await post.deliveries.redeliver(endpoint, first.id)
    await post.dispatcher().sweep()
    assert [one.headers["webhook-id"] for one in receiver.take()] == [first.id] * 2
    since = await post.now() + 1
    await asyncio.sleep(0.003)
    for _ in range(2):
        await post.complete()
    receiver.say(410)
    await post.dispatcher(most=1).sweep()
    await post.dispatcher().sweep()
    endpoint = await post.webhooks.get(TENANT, endpoint.id)
    with pytest.raises(ConflictError, match="disabled"):
        await post.deliveries.redeliver_since(endpoint, since, only_failed=True)
    endpoint = await post.webhooks.change(TENANT, endpoint.id, {"enabled": True})
    receiver.take()
    assert await post.deliveries.redeliver_since(endpoint, since, only_failed=True) == 2
    await post.dispatcher().sweep()
    assert len(receiver.take()) == 2
    assert await post.deliveries.redeliver_since(endpoint, since, only_failed=True) == 0
    assert await post.deliveries.redeliver_since(endpoint, 0, only_failed=False) == 3
    await post.dispatcher().sweep()
    assert len({one.headers["webhook-id"] for one in receiver.take()}) == 3


async def test_a_test_is_sent_to_one_endpoint(post: Post, receiver: Receiver) -> None:
    endpoint, _ = await post.endpoint(f"{receiver.url}/a"), await post.endpoint(f"{receiver.url}/b")
    made = await post.deliveries.test(endpoint)
    await post.dispatcher().sweep()
    (got,) = receiver.take()
    assert (got.path, got.headers["webhook-id"], got.json["type"]) == ("/a", made.id, outbox.TEST)


# ---- what is kept


async def test_secrets_are_taken_out_of_what_is_told_and_logged(post: Post, receiver: Receiver) -> None:
    endpoint = await post.endpoint(receiver.url)
    job, attempt = await post.driver.start()
    await post.driver.end(job, attempt, "complete", {"output": "", "note": "my-very-own-secret"})
    receiver.answers.append(Answer(500, body=b"no my-very-own-secret here"))
    await post.dispatcher(secrets=("my-very-own-secret",)).sweep()
    (got,) = receiver.take()
    assert got.json["data"]["note"] == "[redacted:secret]"
    assert (await post.one(endpoint)).log[0]["body"] == "no [redacted:secret] here"


async def test_what_was_settled_is_pruned_and_what_was_not_stays(post: Post, receiver: Receiver, tmp_path: Any) -> None:
    endpoint = await post.endpoint(receiver.url)
    await post.complete()
    await post.complete()
    await post.dispatcher(most=1).sweep()
    retention = Retention(post.link, FileStore(post.link, f"file://{tmp_path}"), 0, 0)
    pruned = await retention.sweep()
    assert (pruned.jobs, pruned.deliveries) == (2, 1)
    assert [one.status for one in await post.all(endpoint)] == ["pending"]
    await post.dispatcher().sweep()
    assert [one.status for one in await post.all(endpoint)] == ["dropped"], "its job was pruned before it was told"
    assert (await retention.sweep()).deliveries == 1
    left = [name.decode() for name in await post.link.command("KEYS", "*")]
    assert not [
        name for name in left if name.startswith((keys.DELIVERY_PREFIX, keys.DELIVERIES_PREFIX, keys.LANE_PREFIX))
    ]


async def test_a_body_that_was_sent_once_outlives_its_job(post: Post, receiver: Receiver, tmp_path: Any) -> None:
    await post.endpoint(receiver.url)
    await post.complete()
    receiver.say(500)
    await post.dispatcher().sweep()
    await Retention(post.link, FileStore(post.link, f"file://{tmp_path}"), 0, 0).sweep()
    await post.hasten()
    await post.dispatcher().sweep()
    first, second = receiver.take()
    assert first.body == second.body
