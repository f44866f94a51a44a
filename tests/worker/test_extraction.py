"""What is learnt from a job that has completed: by a job of its own, once, and at the time at which it was said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from agent_core import UserMemory, input_check
from agent_core.guardrails import Redact
from agent_core.testing import ScriptedModel, calls, says
from agent_core.types import Budget, Json
from jobs import keys
from jobs.actions import fork
from jobs.agents import AgentCatalogue
from jobs.errors import StoppedError, UnavailableError
from jobs.records import JobSpec
from jobs.store import JobStore
from memory.client import connect
from memory.errors import EmbeddingError
from memory.extract import SYSTEM
from memory.longterm import LongTermMemory
from memory.points import Source
from memory.session import SessionMemory, SessionScope
from simulator.behaviours import memory as simulated
from tests.memory.embedded_server import EmbeddedServer
from tests.worker.conftest import TENANT, Bench
from tests.worker.remembering import EXTRACTION, NOWHERE, Remembering, add, memory_at, memory_by, remembering_agent
from worker.executor import Executor
from worker.extraction import CHANGE_MEMORY, submit_extraction
from worker.job_memory import AWAY_MS

INPUT = "I live in Oslo. What is the weather?"
OSLO = add("The user lives in Oslo.", "I live in Oslo", slot="user.city")


@pytest.fixture
async def ada(bench: Bench, embedded: EmbeddedServer) -> AsyncIterator[Remembering]:
    lazy = memory_at(embedded)
    yield Remembering(bench, lazy, remembering_agent())
    await lazy.aclose()


def change(*operations: Json) -> Json:
    return calls(("change_memory", {"operations": list(operations)}))


async def told(ada: Remembering, text: Any = INPUT, answer: str = "It rains.", **fields: Any) -> str:
    """A job that has completed; its id."""
    job_id = await ada.submit(text, **fields)
    job = await ada.run([says(answer)])
    assert (job.id, job.status) == (job_id, "completed")
    return job_id


async def test_what_a_job_was_shown_counts_as_used(ada: Remembering) -> None:
    memory = await ada.memory()
    rain = await memory.remember(ada.scope, "Ada likes the weather in Oslo.")
    tea = await memory.remember(ada.scope, "Tea is made of leaves.")
    await ada.learnt_by(await told(ada))
    await ada.run([change()])
    assert [(await memory.get(ada.scope, each.id)).uses for each in (rain, tea)] == [1, 0]


async def test_what_the_user_said_is_learnt_by_a_job_of_the_platforms_own(ada: Remembering) -> None:
    source = await told(ada, priority="high")
    learning = await ada.bench.job(await ada.learnt_by(source))
    assert (learning.spec.agent, learning.spec.user, learning.spec.priority) == (EXTRACTION, ada.user, "low")
    assert (learning.spec.input, learning.spec.metadata) == ({"job_id": source}, {"job_id": source})
    assert learning.spec.tags == ["memory"]
    model = ScriptedModel([change(OSLO, add("The user is rich.", "you are rich"))])
    done = await ada.run(model)
    assert (done.id, done.status, done.stop_reason) == (learning.id, "completed", "end_turn")

    [request] = model.requests
    shown, given = (block["text"] for block in request.messages[0]["content"])
    assert f"# Remembered\nnothing yet\n\n# Conversation\n<user>\n{INPUT}\n</user>\n<assistant>\nIt rains." in shown
    assert json.loads(given) == {"job_id": source}
    assert request.system.startswith(SYSTEM)
    assert request.extra["tool_choice"]["name"] == "change_memory"

    [kept] = await (await ada.memory()).browse(ada.scope)
    ended = (await ada.bench.job(source)).ended_ms
    lines = await ada.bench.store.lines(source)
    assert (kept.text, kept.slot) == ("The user lives in Oslo.", "user.city")
    assert kept.last_confirmed_at == datetime.fromtimestamp((ended or 0) / 1000, UTC)
    assert kept.source == Source(source, lines[0].id, lines[-1].id)
    assert json.loads(done.output) == {"written": [{"op": "add", "id": kept.id}]}


async def test_the_conversation_is_in_the_request_alone(ada: Remembering) -> None:
    await told(ada, "I live in Oslo. The weather is foul.", "How unpleasant.")
    learning = await ada.run([change(OSLO)])
    journal = json.dumps([line.data for line in await ada.bench.store.lines(learning.id)])
    assert "foul" not in journal
    assert "unpleasant" not in journal


async def test_what_is_known_is_shown_by_numbers_that_mean_the_same_on_every_attempt(ada: Remembering) -> None:
    memory = await ada.memory()
    cat = await memory.remember(ada.scope, "Ada has a cat.")
    oslo = await memory.remember(ada.scope, "Ada lives in Oslo.", slot="user.city")
    await told(ada, "I moved to Rome, with my cat.")
    claim = await ada.claim()
    asked = ScriptedModel(
        [change({"op": "supersede", "id": 2, "text": "Ada lives in Rome.", "quote": "moved to Rome"})]
    )
    model = Dying(asked)
    attempted = ada.begin(claim, model)
    await model.replied.wait()
    attempted.interrupt("lost")
    assert attempted.task is not None
    await attempted.task
    first = asked.requests[0].messages[0]["content"][0]["text"]
    assert "[1] Ada has a cat.\n[2] Ada lives in Oslo. (slot user.city)" in first
    await ada.bench.end_lease(claim)
    await ada.bench.reaper.sweep()

    await memory.forget(ada.scope, cat.id)
    await memory.remember(ada.scope, "Ada's cat moved to Rome.")
    again = ScriptedModel(asked.replies)
    done = await ada.run(again)
    second = again.requests[0].messages[0]["content"][0]["text"]
    assert second == first.replace("[1] Ada has a cat.\n", "")
    [written] = json.loads(done.output)["written"]
    assert (written["op"], written["superseded"]) == ("supersede", oslo.id)
    assert await memory.get_user_facts(ada.scope) == {"user.city": "Ada lives in Rome."}


class Dying(ScriptedModel):
    """Gives its reply to nobody."""

    def __init__(self, model: ScriptedModel) -> None:
        super().__init__(model.replies)
        self.requests = model.requests
        self.replied = asyncio.Event()

    async def complete(self, request: Any, draft: Any) -> None:
        await super().complete(request, draft)
        self.replied.set()
        await asyncio.Event().wait()


async def test_each_operation_is_applied_and_told_by_ids(ada: Remembering) -> None:
    memory = await ada.memory()
    oslo = await memory.remember(ada.scope, "Ada lives in Oslo.")
    tea = await memory.remember(ada.scope, "Ada likes tea.")
    await told(ada, "I moved to Rome, and I still like tea. Please book a flight.")
    operations = [
        {"op": "supersede", "id": 2, "text": "Ada lives in Rome.", "quote": "I moved to Rome"},
        {"op": "noop", "id": 1, "quote": "still like tea"},
        add("Ada asked for a flight.", "book a flight", kind="episodic"),
    ]
    done = await ada.run([change(*operations)])
    written = json.loads(done.output)["written"]
    assert [each["op"] for each in written] == ["supersede", "noop", "add"]
    assert written[1]["id"] == tea.id
    assert sorted(await ada.texts()) == ["Ada asked for a flight.", "Ada likes tea.", "Ada lives in Rome."]
    assert (await memory.get(ada.scope, oslo.id)).superseded_by == written[0]["id"]
    assert (await memory.get(ada.scope, tea.id)).last_confirmed_at > tea.last_confirmed_at
    assert (await memory.get(ada.scope, written[2]["id"])).event_at is not None


async def test_what_was_said_since_is_not_superseded_by_a_job_that_ended_earlier(ada: Remembering) -> None:
    memory = await ada.memory()
    await told(ada, "I live in Oslo. I drink tea.")
    newer = await memory.remember(ada.scope, "The user lives in Rome.", slot="user.city")
    coffee = await memory.remember(ada.scope, "The user drinks coffee.")
    superseded = {"op": "supersede", "id": 1, "text": "The user drinks tea.", "quote": "I drink tea"}
    model = ScriptedModel([change(OSLO, superseded)])
    await ada.run(model)
    assert "[1] The user drinks coffee." in str(model.requests[0].messages)
    assert await memory.get_user_facts(ada.scope) == {"user.city": "The user lives in Rome."}
    assert {each.id for each in await memory.browse(ada.scope)} == {newer.id, coffee.id}


async def test_a_list_that_cannot_be_applied_is_sent_back_and_changes_nothing(ada: Remembering) -> None:
    await told(ada)
    model = ScriptedModel([change(OSLO, {"op": "noop", "id": 7, "quote": "I live in Oslo"}), change(OSLO)])
    assert (await ada.run(model)).status == "completed"
    assert "memories that were not shown: [7]; nothing was changed" in str(model.requests[1].messages[-1])
    assert await ada.texts() == ["The user lives in Oslo."]


async def test_an_extraction_is_in_line_with_the_others_of_its_user_and_has_no_conversation(ada: Remembering) -> None:
    first, second = [await told(ada), await told(ada, "I like tea.")]
    one, two = [await ada.bench.job(await ada.learnt_by(each)) for each in (first, second)]
    assert one.spec.session_id == two.spec.session_id
    claim = await ada.claim()
    assert claim.job_id == one.id
    with pytest.raises(AssertionError, match="there is no ticket"):
        await ada.claim()
    attempted = ada.begin(claim, [change(OSLO)])
    assert attempted.task is not None
    await attempted.task
    done = await ada.run([change(add("The user likes tea.", "I like tea"))])
    assert (done.id, done.status) == (two.id, "completed")
    scope = SessionScope(TENANT, one.spec.session_id or "")
    assert (await SessionMemory(ada.bench.store.link).read(scope)).messages == []


async def test_of_an_attempt_that_died_before_the_end_there_is_one_extraction(
    ada: Remembering, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await ada.submit(INPUT)
    for dies_at in ("submitted", "noted"):
        claim = await ada.claim()
        reached = asyncio.Event()

        async def submit_and_die(*given: Any, reached: asyncio.Event = reached) -> str:
            await submit_extraction(*given)
            return await die(reached=reached)

        async def die(*given: Any, reached: asyncio.Event = reached) -> Any:
            reached.set()
            await asyncio.Event().wait()

        with monkeypatch.context() as patch:
            if dies_at == "submitted":
                patch.setattr("worker.recollection.submit_extraction", submit_and_die)
            else:
                patch.setattr(Executor, "_end", die)
            attempted = ada.begin(claim, [says("It rains.")])
            await reached.wait()
            assert attempted.task is not None
            attempted.task.cancel()
            await asyncio.wait([attempted.task])
        await ada.bench.end_lease(claim)
        await ada.bench.reaper.sweep()
    assert (await ada.run([])).status == "completed"
    job_id = await ada.learnt_by(source)
    assert len(await ada.bench.store.link.command("ZRANGE", keys.all_jobs(TENANT), 0, -1)) == 2
    assert (await ada.bench.job(job_id)).spec.metadata == {"job_id": source}


@pytest.mark.parametrize("case", ["failed", "child", "learns not", "an extraction"])
async def test_nothing_else_is_learnt_from(ada: Remembering, case: str) -> None:
    agent = remembering_agent(memory=UserMemory(learns=False)) if case == "learns not" else ada.agent
    if case == "child":
        parent = await ada.submit("parent")
        claim = await ada.claim()
        spec = JobSpec(agent="x", agent_version=agent.version, input=INPUT, user=ada.user).under(
            await ada.bench.job(parent)
        )
        job_id = (await ada.bench.store.submit(TENANT, spec, Budget())).job.id
        assert claim.job_id == parent
    else:
        job_id = await ada.submit(INPUT, agent)
    done = await ada.run([says("no", "refusal") if case == "failed" else says("so")], agent)
    assert (done.id, done.status) == (job_id, "failed" if case == "failed" else "completed")
    if case == "an extraction":
        done = await ada.run([change(OSLO)])
    assert await ada.extraction(done.id) is None


@pytest.mark.parametrize(
    "why", [StoppedError("the kill switch is on"), UnavailableError("Redis is full"), KeyError("a bug")]
)
async def test_an_extraction_that_is_refused_is_nothing_to_the_job(
    ada: Remembering, monkeypatch: pytest.MonkeyPatch, why: Exception
) -> None:
    job_id = await ada.submit(INPUT)
    claim = await ada.claim()
    original = JobStore.submit

    async def refused(store: JobStore, tenant: str, spec: JobSpec, *given: Any, **more: Any) -> Any:
        if spec.agent == EXTRACTION:
            raise why
        return await original(store, tenant, spec, *given, **more)

    monkeypatch.setattr(JobStore, "submit", refused)
    attempted = ada.begin(claim, [says("It rains.")])
    assert attempted.task is not None
    await attempted.task
    assert (await ada.bench.job(job_id)).status == "completed"
    assert await ada.extraction(job_id) is None


async def extraction(ada: Remembering, source: Any, **fields: Any) -> str:
    """An extraction that someone submits by hand; its id."""
    agent = ada.agents(None)[1]
    return await ada.submit({"job_id": source}, agent, **fields)


@pytest.mark.parametrize("case", ["no such job", "another tenant's", "another user's", "said nothing", "no memory"])
async def test_there_may_be_nothing_to_do(ada: Remembering, case: str) -> None:
    source: Any = "job_that_never_was"
    if case == "another tenant's":
        spec = JobSpec(agent="x", agent_version=ada.agent.version, input=INPUT, user=ada.user)
        source = (await ada.bench.store.submit("rival", spec, Budget())).job.id
        await ada.run([says("so")])
        await ada.claim()  # its own extraction
    elif case == "another user's":
        source = await told(ada, user="bob")
        await ada.claim()
    elif case in ("said nothing", "no memory"):
        agent = remembering_agent(memory=case == "said nothing" and UserMemory(learns=False))
        source = await ada.submit(" \n" if case == "said nothing" else INPUT, agent)
        await ada.run([says("so")], agent)
    job_id = await extraction(ada, source)
    done = await ada.run([])
    assert (done.id, done.status) == (job_id, "completed")
    assert done.output.startswith("nothing to do")
    assert await ada.texts() == []


async def test_it_waits_for_the_end_of_its_source(ada: Remembering) -> None:
    source = await ada.submit(INPUT)
    claim = await ada.claim()
    job_id = await extraction(ada, source)
    waiting = await ada.run([])
    assert (waiting.id, waiting.status) == (job_id, "queued")
    assert "has not ended yet" in (await ada.bench.store.lines(job_id))[-1].data["why"]
    attempted = ada.begin(claim, [says("It rains.")])
    assert attempted.task is not None
    await attempted.task
    await back(ada, job_id)
    assert (await ada.run([change(OSLO)])).status == "completed"


async def back(ada: Remembering, job_id: str) -> int:
    """Lets a job that was put off go on at once; the ms for which it was."""
    due = await ada.bench.store.link.command("ZSCORE", keys.DUE, job_id)
    await ada.bench.store.undefer(job_id)
    await ada.bench.store.release(job_id)
    return int(float(due)) - int(datetime.now(UTC).timestamp() * 1000)


async def test_without_memory_it_waits_in_the_queue_as_often_as_needed(ada: Remembering) -> None:
    source = await told(ada)
    here, ada.lazy = ada.lazy, memory_by(qdrant_url=NOWHERE)
    for _ in range(10):
        waiting = await ada.run([])
        assert waiting.status == "queued"
        assert 0 < await back(ada, waiting.id) <= AWAY_MS
    await ada.lazy.aclose()
    ada.lazy = here
    assert (await ada.run([change(OSLO)])).id == await ada.learnt_by(source)
    assert await ada.texts() == ["The user lives in Oslo."]


async def test_an_embedder_that_will_never_answer_ends_it(ada: Remembering, monkeypatch: pytest.MonkeyPatch) -> None:
    await told(ada)

    async def refuse(*given: Any, **more: Any) -> Any:
        raise EmbeddingError("no such model", retryable=False)

    monkeypatch.setattr(LongTermMemory, "recall", refuse)
    failed = await ada.run([])
    assert (failed.status, failed.error) == ("failed", {"code": "embedding_failed", "message": "no such model"})


async def test_a_memory_that_goes_away_under_it_costs_no_turn(
    ada: Remembering, monkeypatch: pytest.MonkeyPatch
) -> None:
    await told(ada)
    gone = LongTermMemory(connect(NOWHERE))
    with monkeypatch.context() as patch:
        patch.setattr(LongTermMemory, "as_of", lambda memory, said_at: gone)
        waiting = await ada.run([change(OSLO)])
    await gone.aclose()
    assert waiting.status == "queued"
    assert 0 < await back(ada, waiting.id) <= AWAY_MS
    done = await ada.run([change(OSLO)])
    assert (done.status, done.counters["model_calls"]) == ("completed", 1)
    assert await ada.texts() == ["The user lives in Oslo."]


async def test_what_a_guardrail_took_out_is_not_learnt(ada: Remembering) -> None:
    @input_check
    def without_numbers(text: str, given: Any) -> Redact:
        return Redact("I live in Oslo. My PIN is [gone].")

    ada.agent = remembering_agent(guardrails=[without_numbers])
    await told(ada, "I live in Oslo. My PIN is 1234.")
    model = ScriptedModel([change(OSLO, add("PIN 1234", "My PIN is 1234"))])
    await ada.run(model)
    assert "1234" not in str(model.requests[0].messages)
    assert await ada.texts() == ["The user lives in Oslo."]


async def test_all_that_the_user_said_is_looked_through_and_no_tools_result(ada: Remembering) -> None:
    source = await ada.submit("I live in Oslo.")
    await ada.run([calls(("recall", {"query": "cities"})), says("Noted.")])
    await ada.run([change(OSLO)])
    forked = await fork(ada.bench.store, TENANT, source, step=1, changes={}, message="I like tea.")
    done = await ada.run([says("one"), says("Tea it is.")])
    assert done.id == forked.job.id
    model = ScriptedModel([change()])
    await ada.run(model)
    shown = model.requests[0].messages[0]["content"][0]["text"]
    assert shown.endswith(
        "<user>\nI live in Oslo.\n</user>\n<user>\nI like tea.\n</user>\n<assistant>\nTea it is.\n</assistant>"
    )


async def test_a_long_history_is_shown_as_far_as_the_budget_of_an_extraction_goes(ada: Remembering) -> None:
    memory = await ada.memory()
    for number in range(6):
        await memory.remember(ada.scope, f"Note {number}: {'tea ' * 700}")
    source = await told(ada, "tea " * 5_000)
    for number in range(10):
        assert (await ada.run([change()])).spec.agent == EXTRACTION
        said = f"{number} " + "tea " * 5_000
        source = (await fork(ada.bench.store, TENANT, source, step=None, changes={}, message=said)).job.id
        assert (await ada.run([says("so")] * (number + 2))).status == "completed"
    model = ScriptedModel([change()])
    done = await ada.run(model)
    shown = model.requests[0].messages[0]["content"][0]["text"]
    assert (shown.count("<user>"), shown.count("Note ")) == (8, 3)
    assert "\n9 tea" in shown
    [started] = [line for line in await ada.bench.store.lines(done.id) if line.type == "model.started"]
    assert started.data["final"] is False, "the reply that the budget has room for is a whole one"


async def test_the_model_is_the_agents_summariser(ada: Remembering) -> None:
    ada.agent = remembering_agent(models={"summariser": "claude-haiku-4-5"})
    await told(ada)
    model = ScriptedModel([change()])
    done = await ada.run(model)
    assert model.requests[0].model == "claude-haiku-4-5"
    definition = (await AgentCatalogue(ada.bench.store.link).get(EXTRACTION, done.spec.agent_version)).definition
    assert (definition["model"], definition["budget"]["steps"]) == ("claude-haiku-4-5", 4)


def test_the_simulated_model_knows_the_tool() -> None:
    assert CHANGE_MEMORY.name == simulated.TOOL
