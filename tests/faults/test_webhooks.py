"""Receivers fail, hang and die, and so do workers: every event arrives, and one receiver's trouble is no other's."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from standardwebhooks import Webhook

from agent_core.types import Json
from jobs import keys
from jobs.deliveries import Deliveries
from jobs.outbox import ROUTINE
from jobs.signing import new_secret
from jobs.webhooks import Endpoint, Webhooks
from tests.faults.rig import Rig, killed, percentile
from tests.faults.test_failpoints import DELIVERING
from tests.integration.harness import TENANT, WorkerProcess, eventually, script

AGENTS = {"webhook_allow_private": 1, "concurrency": 50}
WORKERS = 2
OWN = 10
"""Every tenth job has a webhook of its own."""
BATCH = 100
AT_ONCE = 20
LATENCY = 0.1


@dataclass(frozen=True)
class Got:
    """One request, and whether it was answered with 200."""

    path: str
    headers: dict[str, str]
    body: bytes
    taken: bool
    at: float


@dataclass
class Unreliable:
    """A receiver that fails a share of its requests and lets others hang; it may be away for a while."""

    fails: float = 0.0
    hangs: float = 0.0
    got: list[Got] = field(default_factory=list)
    chance: random.Random = field(default_factory=lambda: random.Random(7))
    port: int = 0

    def __post_init__(self) -> None:
        self.over = threading.Event()
        self.open()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), _handler(self))
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def shut(self) -> None:
        """Nobody listens any more until it is opened again."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def close(self) -> None:
        self.over.set()
        self.shut()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128


def _handler(receiver: Unreliable) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if len(body) < int(self.headers["content-length"]):
                return  # its worker was killed while it sent this
            headers, luck = {name.lower(): value for name, value in self.headers.items()}, receiver.chance.random()
            hangs, fails = luck < receiver.hangs, luck < receiver.hangs + receiver.fails
            receiver.got.append(Got(self.path, headers, body, not fails, time.time()))
            if hangs:
                receiver.over.wait()
                return
            self.send_response(503 if fails else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:
                """A worker was killed, or has hung up."""

    return Handler


@asynccontextmanager
async def listening(fails: float = 0.0, hangs: float = 0.0) -> AsyncIterator[Unreliable]:
    receiver = Unreliable(fails, hangs)
    try:
        yield receiver
    finally:
        await asyncio.to_thread(receiver.close)


async def hasten(rig: Rig, *, dead: bool = False) -> None:
    """Makes due what waits for its next try; with `dead` also what is under way, as if the leases had ended."""
    for raw in await rig.link.command("KEYS", f"{keys.LANE_PREFIX}*"):
        lane = raw.decode().removeprefix(keys.LANE_PREFIX)
        if dead:
            await rig.link.command("DEL", keys.busy(lane))
        busy = set(await rig.link.command("ZRANGE", keys.busy(lane), 0, -1))
        for delivery_id in await rig.link.command("ZRANGE", raw, 0, -1):
            if delivery_id not in busy:
                await rig.link.command("ZADD", raw, "XX", 0, delivery_id)
        await rig.link.command("ZADD", keys.LANES, "XX", 0, lane)


async def submit(rig: Rig, jobs: int, hook: Json | None, latency: float = LATENCY) -> list[str]:
    """Submits jobs in batches; their ids."""
    ids: list[str] = []
    for start in range(0, jobs, BATCH):
        numbers = range(start, min(jobs, start + BATCH))
        bodies = [
            {
                "agent": "payer",
                "input": script({"text": "done", "latency": latency}, key=f"w{number}"),
                **({"webhook": hook} if hook and number % OWN == 0 else {}),
            }
            for number in numbers
        ]
        answer = await rig.client.post("/v1/jobs/batch", {"jobs": bodies})
        ids += [item["job"]["id"] for item in answer["data"]]
    return ids


def start(rig: Rig, failpoints: str = "") -> WorkerProcess:
    return rig.start_worker(failpoints, **AGENTS)


@pytest.mark.parametrize(
    ("jobs", "away", "every"),
    [
        pytest.param(60, 1.0, 1.5, id="short"),
        pytest.param(2000, 60.0, 10.0, id="long", marks=[pytest.mark.chaos, pytest.mark.timeout(1800)]),
    ],
)
async def test_every_event_arrives(rig: Rig, jobs: int, away: float, every: float, report: Callable[..., None]) -> None:
    secret, webhooks = new_secret(), Webhooks(rig.link)
    async with listening(fails=0.3, hangs=0.05) as receiver:
        endpoint = await webhooks.create(TENANT, f"{receiver.url}/all", None, None, secret)
        await webhooks.rotate(await webhooks.get(TENANT, "jobs"), secret, 0)
        dying = [start(rig, f"{point}=kill@{visit}") for visit, point in enumerate(DELIVERING, 3)]
        ids = await submit(rig, jobs, {"url": f"{receiver.url}/own", "events": ["job.completed"]})
        await killed(dying)
        live, kills = [start(rig) for _ in range(WORKERS)], len(dying)
        await hasten(rig, dead=True)
        await asyncio.to_thread(receiver.shut)
        await asyncio.sleep(away)
        receiver.open()
        next_kill, given_up, again = time.monotonic() + every, 0, 0
        while await outstanding(rig) or (again := await redelivered(rig, endpoint)):
            given_up, again = given_up + again, 0
            if time.monotonic() > next_kill:
                victim = live.pop(0)
                victim.kill()
                live.append(start(rig))
                kills, next_kill = kills + 1, time.monotonic() + every
                await hasten(rig, dead=True)
            await hasten(rig)
            await asyncio.sleep(0.2)
        found = await judged(rig, receiver, secret, ids)
        sequences = sorted(event["data"]["sequence"] for event in found["/all"].values())
        assert sequences == list(range(1, len(sequences) + 1))
        assert (await webhooks.get(TENANT, endpoint.id)).enabled
        tries = len(receiver.got)
        events = len(found["/all"]) + len(found["/own"])
        report(
            "webhooks arrive",
            jobs=jobs,
            kills=kills,
            events=events,
            tries=tries,
            given_up_and_redelivered=given_up,
            missing=0,
        )


async def outstanding(rig: Rig) -> bool:
    """Whether a job has not ended, or anything is still to be delivered."""
    return bool(await rig.link.command("ZCARD", keys.open_jobs(TENANT)) or await rig.link.command("ZCARD", keys.LANES))


async def redelivered(rig: Rig, endpoint: Endpoint) -> int:
    """Asks for what was given up, as a person would afterwards; how many that is."""
    deliveries, of_jobs = Deliveries(rig.link), await Webhooks(rig.link).get(TENANT, "jobs")
    return sum([await deliveries.redeliver_since(one, 0, only_failed=True) for one in (endpoint, of_jobs)])


async def judged(rig: Rig, receiver: Unreliable, secret: str, ids: list[str]) -> dict[str, dict[str, Json]]:
    """The events that arrived, by path and `webhook-id`. Fails unless they are those of the journals, each verified by
    the reference library, each with one id and one body however often it came.
    """
    bodies: defaultdict[tuple[str, str], set[bytes]] = defaultdict(set)
    taken: defaultdict[str, dict[str, Json]] = defaultdict(dict)
    verifier = Webhook(secret)
    for got in receiver.got:
        message_id = got.headers["webhook-id"]
        bodies[got.path, message_id].add(got.body)
        fresh = {**got.headers, **_signed_now(verifier, got)}
        assert verifier.verify(got.body, fresh) == json.loads(got.body)
        if got.taken:
            taken[got.path][message_id] = json.loads(got.body)
    assert {len(different) for different in bodies.values()} == {1}
    journals = {job_id: await rig.store.lines(job_id) for job_id in ids}
    expected = {
        (job_id, f"evt_{line.id}") for job_id, lines in journals.items() for line in lines if line.type in ROUTINE
    }
    arrived = [(event["data"]["job_id"], event["data"]["event_id"]) for event in taken["/all"].values()]
    assert not expected - set(arrived), "missing"
    assert sorted(arrived) == sorted(expected), "an event has two ids"
    own = {event["data"]["job_id"] for event in taken["/own"].values()}
    assert own == set(ids[::OWN])
    return taken


def _signed_now(verifier: Webhook, got: Got) -> Json:
    """The headers of a message as if it had come now, once its own signature is seen to be right: the reference library
    refuses what is older than five minutes, and a long run takes longer.
    """
    sent = datetime.fromtimestamp(int(got.headers["webhook-timestamp"]), UTC)
    message_id, body = got.headers["webhook-id"], got.body.decode()
    assert got.headers["webhook-signature"] == verifier.sign(message_id, sent, body)
    now = datetime.now(UTC)
    signature = verifier.sign(message_id, now, body)
    return {"webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}


@pytest.mark.parametrize(
    ("jobs", "times"),
    [pytest.param(60, None, id="short"), pytest.param(1000, 2.0, id="long", marks=pytest.mark.chaos)],
)
async def test_one_that_hangs_delays_no_other(
    rig: Rig, jobs: int, times: float | None, report: Callable[..., None]
) -> None:
    webhooks = Webhooks(rig.link)
    async with listening() as quick, listening(hangs=1.0) as hangs:
        await webhooks.create(TENANT, quick.url, ["job.queued"], None, new_secret())
        start(rig)
        alone = await delays(rig, quick, jobs)
        await webhooks.create(TENANT, hangs.url, None, None, new_secret())
        beside = await delays(rig, quick, jobs)
        assert hangs.got
        assert not any(got.taken for got in hangs.got)
    p95 = [percentile(found, 0.95) for found in (alone, beside)]
    assert times is None or p95[1] <= times * p95[0], p95
    report("no neighbour", jobs=jobs, p95_alone=f"{p95[0]:.3f} s", p95_beside_one_that_hangs=f"{p95[1]:.3f} s")


async def delays(rig: Rig, receiver: Unreliable, jobs: int) -> list[float]:
    """Seconds from each job's submission to the arrival of its event."""
    before = len(receiver.got)
    for due in range(before + AT_ONCE, before + jobs + 1, AT_ONCE):
        await submit(rig, AT_ONCE, None, latency=0.0)

        async def arrived(due: int = due) -> bool:
            return len(receiver.got) >= due

        await eventually(arrived, "the events", within=60)
    found = receiver.got[before:]
    assert len(found) == jobs
    return [got.at - _written(got) for got in found]


def _written(got: Got) -> float:
    return datetime.fromisoformat(json.loads(got.body)["timestamp"]).timestamp()
