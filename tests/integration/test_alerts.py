"""From jobs that fail, and cost money, to what a receiver on loopback gets, across a restart."""

from __future__ import annotations

import asyncio
import base64

import pytest
from standardwebhooks import Webhook

from agent_core.types import Json
from jobs import keys
from tests.integration.harness import Platform, eventually, says, script
from tests.receiver import Receiver

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


@pytest.fixture
def alerts(receiver: Receiver) -> dict[str, str | int]:
    """The settings of a worker that tells `receiver`."""
    return {
        "alert_webhook_url": f"{receiver.url}/webhook",
        "alert_webhook_secret": SECRET,
        "alert_slack_url": f"{receiver.url}/services/hush",
        "alert_telegram_token": "12:hush",
        "alert_telegram_chat": "-100",
        "alert_telegram_url": receiver.url,
        "alert_daily_spend_usd": "0.000001",
        "alert_error_rate_jobs": 3,
        "log_level": "debug",
    }


async def told(receiver: Receiver, count: int) -> list[Json]:
    """The events that the webhook got, once there are so many messages in all."""
    for _ in range(count):
        assert await asyncio.to_thread(receiver.arrived.acquire, timeout=20)
    sent = receiver.take()
    assert len(sent) == count
    return [Webhook(SECRET).verify(s.body, s.headers) for s in sent if s.path == "/webhook"]


async def test_failures_and_spend_reach_people_once(
    platform: Platform, receiver: Receiver, alerts: dict[str, str | int]
) -> None:
    refused = says("", faults=[{"status": 400}])
    await platform.start_worker()
    job_ids = [await platform.submit(refused) for _ in range(3)]
    await platform.all_become(job_ids, "failed")
    await platform.becomes(await platform.submit(says("done")), "completed")

    teller = await platform.start_worker(**alerts)
    events = {event["data"]["condition"]: event for event in await told(receiver, 6)}
    assert set(events) == {"error_rate", "daily_spend"}
    failures, spend = events["error_rate"]["data"], events["daily_spend"]["data"]
    assert events["error_rate"]["type"] == events["daily_spend"]["type"] == "alert.raised"
    assert (failures["tenant"], failures["failed"], failures["ended"]) == ("default", 3, 4)
    assert set(failures["jobs"]) == set(job_ids)
    assert float(spend["spent_usd"]) > float(spend["limit_usd"]) == 0.000001

    async def noted() -> bool:
        return not await platform.link.command("EXISTS", keys.ALERT_OUTBOX)

    await eventually(noted, "the note of the last delivery")
    teller.kill()

    specs = [await platform.spec(script(refused, key=f"other-{number}")) for number in range(3)]
    others = [(await platform.store.submit("other", *spec)).job.id for spec in specs]

    async def failed() -> bool:
        return all([job is not None and job.status == "failed" for job in await platform.store.get_many(others)])

    await eventually(failed, "the failure of the other tenant's jobs")
    await platform.link.command("DEL", keys.ALERT_LOCK)  # its time is over
    another = await platform.start_worker(**alerts)
    (event,) = await told(receiver, 3)  # and nothing of what still holds
    assert (event["data"]["tenant"], event["data"]["condition"]) == ("other", "error_rate")
    for log in (teller.log, another.log):
        written = log.read_text()
        assert "alert.raised" in written
        assert "hush" not in written
        assert SECRET not in written
