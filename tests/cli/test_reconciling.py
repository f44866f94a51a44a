"""A person decides about an interrupted call from the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from agent_core.types import Budget
from api.settings import Settings
from cli import reconciling
from cli.errors import UsageError
from cli.progress import describe
from jobs.moves import Attempt
from jobs.queue import queue_names
from jobs.records import JobSpec
from jobs.store import JobStore
from tests.api.conftest import ADMIN, serving
from tests.cli.conftest import Cli
from tests.cli.harness import Result

NOTHING: dict[str, Any] = {
    "call": None, "happened": None, "not_happened": False, "decisions": None, "stop": False, "reason": None
}  # fmt: skip


def body(*waiting: str, **given: Any) -> Any:
    explanation = {"job_id": "job_1", "status": "requires_action", "calls": [{"call_id": name} for name in waiting]}
    return reconciling.body(reconciling.Choice(**{**NOTHING, **given}), lambda: explanation)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"happened": "paid"}, {"decisions": [{"call_id": "c1", "decision": "happened", "result": "paid"}]}),
        ({"call": "c7", "happened": ""}, {"decisions": [{"call_id": "c7", "decision": "happened", "result": ""}]}),
        ({"not_happened": True}, {"decisions": [{"call_id": "c1", "decision": "not_happened"}]}),
        ({"decisions": '[{"call_id": "c2"}]'}, {"decisions": [{"call_id": "c2"}]}),
        ({"stop": True}, {"stop": True}),
        ({"stop": True, "reason": "so"}, {"stop": True, "reason": "so"}),
    ],
)
def test_the_words_of_the_command_line_as_the_api_takes_them(given, sent):
    assert body("c1", **given) == sent


@pytest.mark.parametrize(
    ("waiting", "given", "reason"),
    [
        (["c1"], {}, "give one of"),
        (["c1"], {"happened": "x", "not_happened": True}, "give one of"),
        (["c1"], {"stop": True, "decisions": "[]"}, "give one of"),
        (["c1"], {"not_happened": True, "reason": "so"}, "goes with --stop"),
        (["c1"], {"decisions": "nonsense"}, "is no JSON"),
        ([], {"not_happened": True}, "waits for no decision"),
        (["c1", "c2"], {"not_happened": True}, "2 calls wait: c1, c2; decide about all of them with --decisions"),
    ],
)
def test_wrong_usage_says_what_to_do(waiting, given, reason):
    with pytest.raises(UsageError, match=reason):
        body(*waiting, **given)


class Parked:
    """A job that waits for words about its calls, and the command line on its platform."""

    def __init__(self, store: JobStore, cli: Cli) -> None:
        self.store = store
        self._cli = cli
        self.id = ""

    async def park(self, *call_ids: str) -> None:
        spec = JobSpec(agent="echo", input="go", agent_version="v1")
        self.id = (await self.store.submit("default", spec, Budget())).job.id
        (claim,) = await self.store.tickets.claim(queue_names(["default"]), ["echo@v1"], most=1, lease=30, worker="w")
        assert claim.job is not None
        calls = [{"call_id": c, "tool": "pay", "input": {"amount": 3}, "key": f"{self.id}.{c}"} for c in call_ids]
        data = {"stop_reason": "needs_reconcile", "calls": calls}
        attempt = Attempt(claim.token, claim.queue)
        await self.store.move(claim.job, "park", data, attempt=attempt, stop_reason="needs_reconcile")

    async def cli(self, *words: str) -> Result:
        """Runs a command in a thread, for the API that it asks is served by this one."""
        return await asyncio.to_thread(self._cli, *words)


@pytest.fixture
async def parked(
    store: JobStore, redis_url: str, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Parked]:
    settings = Settings(redis_url=redis_url, port=0, data_dir=tmp_path, admin_key=SecretStr(ADMIN))
    async with serving(settings) as url:
        monkeypatch.setenv("NIGHTSHIFT_URL", url)
        monkeypatch.setenv("NIGHTSHIFT_API_KEY", ADMIN)
        yield Parked(store, cli)


async def test_show_and_explain_say_which_call_waits_and_how_to_decide(parked: Parked):
    await parked.park("toolu_1")
    for command in ("show", "explain"):
        said = await parked.cli(command, parked.id)
        assert said.status == 0
        assert "requires_action" in said.out
        row = said.out.splitlines()[-1].split("\t")
        assert row == ["toolu_1", "pay", '{"amount": 3}', f"{parked.id}.toolu_1"]
        assert f"nightshift reconcile {parked.id} CALL --happened" in said.err
    assert (await parked.cli("explain", parked.id, "--json")).json["calls"][0]["call_id"] == "toolu_1"


@pytest.mark.parametrize(
    ("words", "printed", "event"),
    [
        (["--happened", "paid"], "queued", "toolu_1 happened"),
        (["toolu_1", "--not-happened"], "queued", "toolu_1 not_happened"),
        (["--stop", "--reason", "paid by hand"], "failed", "needs_reconcile: paid by hand"),
    ],
)
async def test_a_decision(parked: Parked, words, printed, event):
    await parked.park("toolu_1")
    done = await parked.cli("reconcile", parked.id, *words)
    assert (done.status, done.out) == (0, f"{parked.id} {printed}\n"), done.err
    line = (await parked.store.lines(parked.id))[-1]
    assert event in describe(line.to_event(parked.id))
    again = await parked.cli("reconcile", parked.id, *words)
    assert again.status == 2
    assert printed in again.err


async def test_several_calls_at_once(parked: Parked):
    await parked.park("a", "b")
    refused = await parked.cli("reconcile", parked.id, "a", "--not-happened")
    assert (refused.status, "missing for b" in refused.err) == (2, True)
    decisions = [
        {"call_id": "a", "decision": "not_happened"},
        {"call_id": "b", "decision": "happened", "result": {"x": 1}},
    ]
    done = await parked.cli("reconcile", parked.id, "--decisions", json.dumps(decisions), "--json")
    assert done.json["status"] == "queued"


def test_events_about_interrupted_calls_are_told_in_words():
    def event(type_: str, **data: Any) -> dict[str, Any]:
        return {"type": type_, "job_id": "job_1", "created_at": "2026-11-20T08:30:00Z", "attempt": 1, "data": data}

    waiting = [{"call_id": "c1", "tool": "pay"}]
    asked = describe(event("job.requires_action", stop_reason="needs_reconcile", calls=waiting))
    assert "pay (c1)" in asked
    assert "nightshift reconcile job_1" in asked
    assert "approval: pay (c1)" in describe(event("job.requires_action", stop_reason="approval", calls=waiting))
    said = describe(event("tool.reconciled", step=1, name="pay", decision="not_happened", by="reconcile"))
    assert said.endswith("step 1: pay did not happen, says its reconcile function")
    assert describe(event("job.resumed")).split() == ["08:30:00", "job.resumed"]
