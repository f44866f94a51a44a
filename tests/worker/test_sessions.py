"""Sessions that grow too long: what jobs sum up, what is given back to the session, and what a crash does to it."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from agent_core import Agent, Budget, ModelError
from agent_core.compaction import SECTIONS, SUMMARISE, SUMMARISE_SESSION
from agent_core.entries import Compacted
from agent_core.messages import text_of
from agent_core.ports import Draft, Request
from agent_core.state import SUMMARY
from agent_core.testing import says
from agent_core.types import Json
from jobs.actions import fork, retry
from jobs.journal import ledger_rows
from memory.session import Conversation, SessionMemory, SessionScope
from tests.worker.conftest import TENANT, Bench, make_agent
from worker.executor import Attempted
from worker.restore import restore

WINDOW = 4_000
FACTS = [f"FACT {number}: number {number} is {number * 7919}" for number in range(20)]
ROUND = 4
"""Jobs that fill a session by as much as one summary takes away."""
SCOPE = SessionScope(TENANT, "s")
BROKEN = ModelError("invalid_request", "no", retryable=False, billed=False)
TOO_MUCH = says("\n".join(f"{section}\n{'x' * WINDOW}" for section in SECTIONS))
FAILURES: list[Json | ModelError] = [BROKEN, says(""), TOO_MUCH, says("internal server error")]


class Teller:
    """Answers at length, and sums up by taking over every line that begins with FACT; `odd` replies come first."""

    def __init__(self, *odd: Json | ModelError, answer: str = "") -> None:
        self.odd = list(odd)
        self.answer = answer or "It is as you say. " * 60
        self.asked: list[Request] = []
        self.seen: list[Request] = []

    async def complete(self, request: Request, draft: Draft) -> None:
        said = "\n".join(map(text_of, request.messages))
        wants_summary = said.endswith((SUMMARISE, SUMMARISE_SESSION))
        (self.asked if wants_summary else self.seen).append(copy.deepcopy(request))
        reply: Json | ModelError = says(self.answer)
        if wants_summary:
            facts = dict.fromkeys(line for line in said.splitlines() if line.startswith("FACT"))
            sections = [f"{section}\n- taken over" for section in SECTIONS]
            reply = self.odd.pop(0) if self.odd else says("\n".join([sections[0], *facts, *sections[1:]]))
        if isinstance(reply, ModelError):
            raise reply
        draft.started, draft.content, draft.stop_reason = True, reply["content"], reply["stop_reason"]
        draft.usage = {"input_tokens": len(said) // 4, "output_tokens": 20}

    def worst_case(self, *given: Any) -> int:
        return 1_000

    def affordable(self, *given: Any) -> int:
        return 1_000

    def price(self, *given: Any) -> int:
        return 100

    price_version = "p"


@pytest.fixture
def agent() -> Agent:
    return make_agent(tools=[], auto_approve=[], context_window=WINDOW, budget=Budget(usd=None))


async def conversation(bench: Bench) -> Conversation:
    return await SessionMemory(bench.store.link).read(SCOPE)


def words(conversation: Conversation) -> str:
    return "\n".join(map(text_of, conversation.messages))


async def talk(bench: Bench, agent: Agent, model: Any, *inputs: str) -> list[str]:
    """Runs a job of the session for each input; their ids."""
    ids = []
    for text in inputs:
        ids.append(await bench.submit(agent, session_id="s", input=text))
        job = await bench.run(model, agent)
        assert job.status == "completed", job.error
    return ids


async def fill(bench: Bench, agent: Agent, model: Any | None = None) -> None:
    """Makes the session too long for the next job."""
    await talk(bench, agent, model or Teller(), *FACTS[:5])


async def test_five_rounds_of_compaction_keep_twenty_facts(bench: Bench, agent: Agent) -> None:
    model = Teller()
    ids = await talk(bench, agent, model, *FACTS)
    found = await conversation(bench)
    assert found.generation == len(model.asked) >= 5
    assert found.length == 2 * len(FACTS)
    assert len(found.messages) == found.length - found.base < found.length
    assert text_of(found.messages[0]).startswith(SUMMARY)
    assert [fact for fact in FACTS if fact in words(found)] == FACTS
    last = model.seen[-1].messages
    assert [fact for fact in FACTS if fact in "\n".join(map(text_of, last))] == FACTS
    summed = [
        job_id
        for job_id in ids
        if any(row["role"] == "summariser" for row in ledger_rows(job_id, await bench.store.lines(job_id)))
    ]
    assert len(summed) == found.generation, "each summary is in the ledger of the job that needed it"


@pytest.mark.parametrize("odd", FAILURES, ids=["fails", "nothing", "too much", "an error's text"])
async def test_a_summariser_that_fails_trims_nothing(bench: Bench, agent: Agent, odd: Json | ModelError) -> None:
    model = Teller(*[odd] * 1_000)
    await talk(bench, agent, model, *FACTS)
    found = await conversation(bench)
    assert (found.base, found.generation, found.length) == (0, 0, 2 * len(FACTS))
    assert [text_of(message) for message in found.messages[::2]] == FACTS
    assert model.asked


async def test_five_rounds_with_a_summariser_that_fails_in_every_way_between(bench: Bench, agent: Agent) -> None:
    odd = [reply for failure in FAILURES for reply in (failure, failure)]
    for start in range(0, len(FACTS), ROUND):
        await talk(bench, agent, Teller(*odd[:2]), *FACTS[start : start + ROUND])
        odd = odd[2:]
    await talk(bench, agent, Teller(), "and so on")
    found = await conversation(bench)
    assert found.generation >= 3
    assert [fact for fact in FACTS if fact in words(found)] == FACTS


class Hanging(Teller):
    """Never answers anything but the request for a summary; says when it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = asyncio.Event()

    async def complete(self, request: Request, draft: Draft) -> None:
        await super().complete(request, draft)
        if self.seen:
            self.reached.set()
            await asyncio.Event().wait()


async def test_a_summary_that_a_lost_attempt_made_is_neither_made_nor_paid_again(bench: Bench, agent: Agent) -> None:
    await fill(bench, agent)
    job_id = await bench.submit(agent, session_id="s", input="go")
    claim, dying = await bench.claim(agent), Hanging()
    attempted = Attempted(claim)
    attempted.task = asyncio.create_task(bench.executor(dying, agent).execute(attempted))
    await dying.reached.wait()
    attempted.interrupt("lost")
    await attempted.task
    assert (await conversation(bench)).generation == 0, "the session is written when the job ends"
    await bench.end_lease(claim)
    await bench.reaper.sweep()
    model = Teller()
    assert (await bench.run(model, agent)).status == "completed"
    assert (len(dying.asked), len(model.asked)) == (1, 0)
    assert model.seen[0].messages == dying.seen[0].messages
    assert [row["role"] for row in ledger_rows(job_id, await bench.store.lines(job_id))].count("summariser") == 1
    found = await conversation(bench)
    assert (found.generation, found.length) == (1, 12)


@pytest.mark.parametrize("written", ["nothing", "summary", "summary and answer"])
async def test_an_attempt_that_died_while_it_wrote_the_session_leaves_nothing_twice(
    bench: Bench, agent: Agent, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    await fill(bench, agent)
    await bench.submit(agent, session_id="s", input="go")
    claim = await bench.claim(agent)

    reached = asyncio.Event()

    async def gone(*given: Any) -> bool:
        reached.set()
        return await asyncio.Event().wait()

    executor = bench.executor(Teller(answer="the answer"), agent)
    with monkeypatch.context() as patch:
        match written:
            case "nothing":
                patch.setattr(SessionMemory, "compact", gone)
            case "summary":
                patch.setattr(SessionMemory, "append", gone)
            case _:
                patch.setattr(executor, "_end", gone)
        task = asyncio.create_task(executor.execute(Attempted(claim)))
        await reached.wait()
        found = await conversation(bench)
        expected = {"nothing": (0, 10), "summary": (1, 10), "summary and answer": (1, 12)}[written]
        assert (found.generation, found.length) == expected
        task.cancel()
        await asyncio.wait([task])
    await bench.end_lease(claim)
    await bench.reaper.sweep()
    model = Teller()
    assert (await bench.run(model, agent)).status == "completed"
    assert not model.asked
    found = await conversation(bench)
    assert (found.generation, found.length) == (1, 12)
    assert [text_of(message) for message in found.messages[-2:]] == ["go", "the answer"]
    assert [fact for fact in FACTS if fact in words(found)] == FACTS[:5]


class Refusing(Teller):
    """Sums up, and declines the task."""

    async def complete(self, request: Request, draft: Draft) -> None:
        await super().complete(request, draft)
        draft.stop_reason = "refusal" if self.seen else draft.stop_reason


async def test_a_job_that_fails_gives_its_summary_and_nothing_else(bench: Bench, agent: Agent) -> None:
    await fill(bench, agent)
    job_id = await bench.submit(agent, session_id="s", input="go")
    refusing = Teller(answer="no")
    job = await bench.run(Refusing(), agent)
    assert job.status == "failed"
    found = await conversation(bench)
    assert (found.generation, found.length) == (1, 10)

    # others go on, and then the job is tried again: its summary is of what the session no longer is
    await talk(bench, agent, refusing, "meanwhile", "and again")
    await retry(bench.store, TENANT, job_id)
    model = Teller(answer="at last")
    assert (await bench.run(model, agent)).output == "at last"
    said = "\n".join(map(text_of, model.seen[0].messages))
    assert [fact for fact in FACTS if fact in said] == FACTS[:5]
    assert "meanwhile" not in said
    after = await conversation(bench)
    assert after.generation == 1
    assert [text_of(message) for message in after.messages[-2:]] == ["and again", "no"]


async def test_a_summary_is_of_no_other_conversation_than_it_was_made_of(bench: Bench, agent: Agent) -> None:
    await fill(bench, agent)
    job_id = await bench.submit(agent, session_id="s", input="go")
    assert (await bench.run(Failing(), agent)).status == "failed"
    await retry(bench.store, TENANT, job_id)
    job = await bench.job(job_id)
    found = await restore(job, bench.store, SessionMemory(bench.store.link), bench.folder, bench.files)
    assert Compacted.TYPE in await bench.types(job_id)
    assert (found.session_length, found.session_generation) == (10, 0)
    assert (found.state.summary, found.state.measured, found.state.replaced) == (None, None, 0)
    assert found.state.messages[:-1] == (await conversation(bench)).messages


class Failing(Teller):
    """Sums up, and fails at the task."""

    async def complete(self, request: Request, draft: Draft) -> None:
        await super().complete(request, draft)
        if self.seen:
            raise BROKEN


async def test_a_fork_has_neither_the_session_nor_its_summary(bench: Bench, agent: Agent) -> None:
    await fill(bench, agent)
    (job_id,) = await talk(bench, agent, Teller(), "go")
    assert Compacted.TYPE in await bench.types(job_id)
    await fork(bench.store, TENANT, job_id, step=1, changes={}, message="go on")
    model = Teller()
    assert (await bench.run(model, agent)).status == "completed"
    assert [text_of(message) for message in model.seen[0].messages[::2]] == ["go", "go on"]
    assert (await conversation(bench)).generation == 1


async def test_a_session_is_forgotten_with_the_user_whose_job_spoke_in_it(bench: Bench, agent: Agent) -> None:
    await bench.submit(agent, session_id="s", input="hello", user="ada")
    assert (await bench.run(Teller(), agent)).status == "completed"
    sessions = SessionMemory(bench.store.link)
    assert await sessions.forget_user(SCOPE.tenant, "bob") == 0
    assert await sessions.forget_user(SCOPE.tenant, "ada") == 1
    assert (await conversation(bench)).length == 0
