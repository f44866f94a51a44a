"""The loop: how a run ends, what holds it, and what becomes of each tool call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_core import Budget, BudgetError, Completed, ModelError, Stopped, Suspended, ToolError, tool, tool_context
from agent_core.defaults import AskForDestructive, MemoryJournal, RefuseDestructive
from agent_core.entries import Entry, ModelCompleted, ModelFailed, ModelStarted, ToolCompleted, ToolRequested
from agent_core.errors import StaleAttemptError
from agent_core.loop import run
from agent_core.outcomes import Deferred, Paused, Refusal
from agent_core.ports import Decision, Draft, Request
from agent_core.pricing import PUBLISHED
from agent_core.results import DATA_NOTE, as_data
from agent_core.state import State
from agent_core.testing import DEFAULT_USAGE, ScriptedModel, calls, says
from agent_core.tools import Registry, ToolContext
from agent_core.turn import CONCLUDE
from agent_core.types import Effect, Json
from tests.agent_core.harness import MODEL, TASK, Log, make_agent, make_ports, play, reread

UNLIMITED = Budget(None, None, None, None)


@tool(effect="read")
async def look(at: int) -> Json:
    """Looks at something."""
    return {"seen": at}


def results(state: State) -> list[Json]:
    """All tool results of a conversation."""
    blocks = [b for m in state.messages if m["role"] == "user" and isinstance(m["content"], list) for b in m["content"]]
    return [b for b in blocks if b["type"] == "tool_result"]


def errors(state: State) -> list[str]:
    return [json.loads(b["content"])["error"]["code"] for b in results(state) if b.get("is_error")]


def types(journal: MemoryJournal) -> list[str]:
    return [entry.TYPE for entry in journal.entries]


# ---- every stop reason is a defined state


async def test_an_answer_after_a_tool_call() -> None:
    model, journal, state = ScriptedModel([calls(("look", {"at": 3})), says("three")]), MemoryJournal(), State([TASK])
    outcome = await play(make_agent([look]), make_ports(model, journal), state)
    assert outcome == Completed("three", "end_turn")
    assert types(journal) == [
        *("model.started", "model.completed", "tool.requested", "tool.completed"),
        *("model.started", "model.completed"),
    ]
    assert model.requests[1].messages[-1] == {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": "toolu_0_0", "content": as_data("look", '{"seen": 3}')}],
    }
    assert (state.usage.model_calls, state.usage.tool_calls, state.step) == (2, 1, 2)


async def test_the_request_holds_what_defines_the_agent() -> None:
    model = ScriptedModel([says("hi")])
    agent = make_agent([look], max_tokens=77, extra={"thinking": {"type": "adaptive"}})
    await play(agent, make_ports(model))
    (request,) = model.requests
    system = f"Be brief.\n\n{DATA_NOTE}"
    assert request == Request(
        MODEL, system, [TASK], [look.to_json()], 77, {"thinking": {"type": "adaptive"}}, request.call_id
    )


@pytest.mark.parametrize(
    ("brings", "system"), [({}, "Be brief."), ({"agents": ["researcher"]}, f"Be brief.\n\n{DATA_NOTE}")]
)
async def test_only_where_results_come_is_the_model_told_how_to_take_them(brings: Json, system: str) -> None:
    model = ScriptedModel([says("hi")])
    await play(make_agent(**brings), make_ports(model))
    assert model.requests[0].system == system


@pytest.mark.parametrize("stop_reason", ["end_turn", "stop_sequence"])
async def test_these_stop_reasons_are_answers(stop_reason: str) -> None:
    outcome = await play(make_agent(), make_ports(ScriptedModel([says("hi", stop_reason)])))
    assert outcome == Completed("hi")


@pytest.mark.parametrize(
    ("stop_reason", "stopped_as", "code"),
    [
        ("max_tokens", "max_tokens", None),
        ("refusal", "refusal", None),
        ("model_context_window_exceeded", "model_context_window_exceeded", None),
        ("a_word_of_a_later_api", "error", "a_word_of_a_later_api"),
    ],
)
async def test_these_stop_reasons_end_the_run_without_running_a_tool(
    stop_reason: str, stopped_as: str, code: str | None
) -> None:
    log = Log()
    model = ScriptedModel([calls(("change", {"to": 1}), text="as far as I came", stop_reason=stop_reason)])
    outcome = await play(make_agent(log.tools), make_ports(model))
    assert isinstance(outcome, Stopped)
    assert (outcome.stop_reason, outcome.code, outcome.output) == (stopped_as, code, "as far as I came")
    assert stop_reason in outcome.detail or stopped_as == stop_reason
    assert not log.began


async def test_a_paused_turn_goes_on() -> None:
    model, state = ScriptedModel([says("searching", "pause_turn"), says("found")]), State([TASK])
    assert await play(make_agent(), make_ports(model), state) == Completed("found")
    assert [m["role"] for m in model.requests[1].messages] == ["user", "assistant"]


async def test_tool_use_without_a_call_ends_the_run() -> None:
    outcome = await play(make_agent([look]), make_ports(ScriptedModel([says("I call", "tool_use")])))
    assert isinstance(outcome, Stopped)
    assert (outcome.stop_reason, outcome.code, outcome.output) == ("error", "tool_use", "I call")


async def test_calls_of_a_whole_reply_run_although_it_says_end_turn() -> None:
    """Some servers of the same API end every reply so. Unanswered calls would spoil the conversation."""
    model = ScriptedModel([calls(("look", {"at": 1}), stop_reason="end_turn"), says("one")])
    assert await play(make_agent([look]), make_ports(model)) == Completed("one")


async def test_an_empty_last_reply_leaves_the_text_before_it_as_the_answer() -> None:
    empty = {"content": [], "stop_reason": "end_turn", "usage": DEFAULT_USAGE}
    model = ScriptedModel([calls(("look", {"at": 1}), text="It is one."), empty])
    assert await play(make_agent([look]), make_ports(model)) == Completed("It is one.")
    assert await play(make_agent(), make_ports(ScriptedModel([empty]))) == Completed("")


async def test_a_failure_that_does_not_pass_is_raised() -> None:
    model = ScriptedModel([ModelError("authentication", "who are you", retryable=False)])
    with pytest.raises(ModelError, match="who are you"):
        await play(make_agent(), make_ports(model))


async def test_a_model_out_of_capacity_defers_the_run() -> None:
    busy = ModelError("rate_limited", "come back in an hour", retryable=True, retry_after=3600)
    outcome = await play(make_agent(), make_ports(ScriptedModel([busy])))
    assert isinstance(outcome, Deferred)
    assert outcome.delay >= 3600


async def test_text_is_signalled_as_it_comes() -> None:
    class Ears:
        def __init__(self) -> None:
            self.heard: list[tuple[int, str]] = []

        def text(self, step: int, delta: str) -> None:
            self.heard.append((step, delta))

    ears = Ears()
    model = ScriptedModel([calls(("look", {"at": 1}), text="I look"), says("one")])
    await play(make_agent([look]), make_ports(model, events=ears))
    assert ears.heard == [(1, "I look"), (2, "one")]


# ---- limits


async def test_steps_are_limited() -> None:
    model = ScriptedModel([calls(("look", {"at": 1}), text="first"), calls(("look", {"at": 2})), says("never")])
    outcome = await play(make_agent([look]), make_ports(model), budget=Budget(steps=2))
    assert outcome == Stopped("max_steps", "the job took its limit of 2 steps", "first")
    assert len(model.requests) == 2


async def test_tokens_are_limited() -> None:
    thirsty = {**calls(("look", {"at": 1}), text="first"), "usage": {"input_tokens": 9_000, "output_tokens": 4_096}}
    model, journal = ScriptedModel([thirsty, says("never")]), MemoryJournal(Budget(tokens=20_000))
    outcome = await play(make_agent([look]), make_ports(model, journal))
    detail = "the next call does not fit into the job's budget: 6,904 tokens of 20,000 tokens are left"
    assert isinstance(outcome, Stopped)
    assert (outcome.stop_reason, outcome.detail, outcome.output) == ("budget_exceeded", detail, "first")
    assert outcome.code == "tokens"
    assert len(model.requests) == 1


async def test_money_is_refused_before_the_call() -> None:
    model, journal = ScriptedModel([says("never")]), MemoryJournal(Budget(usd="0.001"))
    outcome = await play(make_agent(), make_ports(model, journal))
    assert isinstance(outcome, Stopped)
    assert (outcome.stop_reason, outcome.code, outcome.output) == ("budget_exceeded", "usd", None)
    assert outcome.detail.endswith("0.001 USD of 0.001 USD are left")
    assert (model.requests, journal.entries) == ([], [])


async def test_the_whole_request_weighs_on_its_worst_case() -> None:
    """Instructions, tools, extra parameters and the conversation."""
    agent = make_agent([look], instructions="i" * 1000, extra={"x": "y" * 1000})
    state, journal = State([{"role": "user", "content": "t" * 1000}]), MemoryJournal()
    await play(agent, make_ports(ScriptedModel([says("done")]), journal), state)
    sent = len(json.dumps([agent.instructions + DATA_NOTE, agent.extra, look.to_json(), state.messages[:-1]]))
    started = journal.entries[0]
    assert isinstance(started, ModelStarted)
    assert started.reserved == pytest.approx(PUBLISHED.worst_case(MODEL, sent + len(CONCLUDE), 4096), rel=0.005)
    assert started.reserved >= PUBLISHED.worst_case(MODEL, 3300, 4096)


class Refusing(MemoryJournal):
    """Has room for one reservation."""

    async def record(self, *entries: Entry) -> None:
        if self.entries and entries[0].TYPE == "model.started":
            raise BudgetError(Refusal("user:u1", "day", "stop", "usd", 500, 0, 0, None))
        await super().record(*entries)


async def test_a_scope_without_room_stops_the_run_with_its_partial_result() -> None:
    model = ScriptedModel([calls(("look", {"at": 1}), text="first"), says("never")])
    outcome = await play(make_agent([look]), make_ports(model, Refusing()))
    detail = "the next call does not fit into the user:u1 budget of this day: 0 USD of 0.0005 USD are left"
    assert isinstance(outcome, Stopped)
    assert (outcome.stop_reason, outcome.detail, outcome.output) == ("budget_exceeded", detail, "first")
    assert outcome.code == "usd"


async def test_time_is_limited_and_the_partial_result_kept() -> None:
    cut = asyncio.Event()

    @tool(effect="read")
    async def wait() -> None:
        """Waits for ever."""
        try:
            await asyncio.Event().wait()
        finally:
            cut.set()

    content: list[Json] = [
        {"type": "text", "text": "so far"},
        {"type": "tool_use", "id": "toolu_0_1", "name": "wait", "input": {}},
    ]
    reply = ModelCompleted("m", 1, MODEL, content, "tool_use", DEFAULT_USAGE, "p", 900, 400, "settled")
    state = State.restore([TASK], [reply], elapsed=59.7)
    outcome = await play(make_agent([wait]), make_ports(ScriptedModel([])), state, Budget(seconds=60))
    assert outcome == Stopped("timeout", "the job ran for its limit of 60 seconds", "so far")
    assert cut.is_set()


async def test_time_that_earlier_attempts_used_up_leaves_none() -> None:
    model, journal = ScriptedModel([says("never")]), MemoryJournal()
    state = State([TASK], elapsed=60.5)
    outcome = await play(make_agent(), make_ports(model, journal), state, Budget(seconds=60))
    assert outcome == Stopped("timeout", "the job ran for its limit of 60 seconds", None)
    assert (model.requests, journal.entries) == ([], [])


async def test_a_time_out_of_a_port_is_not_the_jobs() -> None:
    class Broken(MemoryJournal):
        async def record(self, *entries: Entry) -> None:
            raise TimeoutError("the store is slow")

    with pytest.raises(TimeoutError, match="the store is slow"):
        await play(make_agent(), make_ports(ScriptedModel([says("hi")]), Broken()))


async def test_no_limits_at_all() -> None:
    assert await play(make_agent(), make_ports(ScriptedModel([says("hi")])), budget=UNLIMITED) == Completed("hi")


async def test_a_pause_is_taken_between_two_steps() -> None:
    class Pausing(MemoryJournal):
        def pause_requested(self) -> bool:
            return any(e.TYPE == "model.started" for e in self.entries)

    log, journal, state = Log(), Pausing(), State([TASK])
    script = [calls(("change", {"to": 1})), says("done")]
    assert await play(make_agent(log.tools), make_ports(ScriptedModel(script), journal), state) == Paused()
    assert types(journal)[-1] == "tool.completed"  # the step that was under way is finished
    restored = State.restore([TASK], reread(journal.entries))
    assert await play(make_agent(log.tools), make_ports(ScriptedModel(script)), restored) == Completed("done")
    assert log.began == {"toolu_0_0": 1}


async def test_an_answer_comes_before_a_pause() -> None:
    class Pausing(MemoryJournal):
        def pause_requested(self) -> bool:
            return bool(self.entries)

    assert await play(make_agent(), make_ports(ScriptedModel([says("hi")]), Pausing())) == Completed("hi")


async def test_a_cancellation_leaves_the_run_and_settles_the_call() -> None:
    streaming = asyncio.Event()

    class Streaming(ScriptedModel):
        async def complete(self, request: Request, draft: Draft) -> None:
            draft.started, draft.usage = True, {"input_tokens": 1000, "output_tokens": 1}
            draft.content = [{"type": "text", "text": "x" * 300}]
            streaming.set()
            await asyncio.Event().wait()

    journal, state = MemoryJournal(), State([TASK])
    task = asyncio.create_task(play(make_agent(), make_ports(Streaming([]), journal), state))
    await streaming.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    failed = journal.entries[-1]
    assert isinstance(failed, ModelFailed)
    assert (failed.reason, failed.code, failed.settled) == ("cut_stream", "cancelled", 3_000)


# ---- approvals


async def test_destructive_calls_are_denied_where_nobody_is_there_to_ask() -> None:
    log, state, journal = Log(), State([TASK]), MemoryJournal()
    model = ScriptedModel([calls(("erase", {"what": 1}), ("change", {"to": 2})), says("done")])
    ports = make_ports(model, journal, approver=RefuseDestructive())
    assert await play(make_agent(log.tools), ports, state) == Completed("done")
    assert log.began == {"toolu_0_1": 1}
    assert errors(state) == ["denied"]
    assert [e.TYPE for e in journal.entries if getattr(e, "call_id", "") == "toolu_0_0"] == ["tool.completed"]


async def test_destructive_calls_suspend_the_run_where_a_person_can_be_asked() -> None:
    log, state, journal = Log(), State([TASK]), MemoryJournal()
    model = ScriptedModel([calls(("erase", {"what": 1}), ("change", {"to": 2})), says("done")])
    ports = make_ports(model, journal, approver=AskForDestructive())
    waiting = {"type": "tool_use", "id": "toolu_0_0", "name": "erase", "input": {"what": 1}}
    assert await play(make_agent(log.tools), ports, state) == Suspended("approval", [waiting])
    assert log.began == {"toolu_0_1": 1}  # what needs nobody is done meanwhile

    restored = State.restore([TASK], reread(journal.entries))  # still undecided
    assert await play(make_agent(log.tools), ports, restored) == Suspended("approval", [waiting])

    class Approved:
        def decide(self, name: str, input: Json, effect: Effect, call_id: str) -> Decision:
            assert (name, input, effect, call_id) == ("erase", {"what": 1}, "destructive", "toolu_0_0")
            return "run"

    assert await play(make_agent(log.tools), make_ports(model, approver=Approved()), restored) == Completed("done")
    assert log.began == {"toolu_0_0": 1, "toolu_0_1": 1}
    assert [b["tool_use_id"] for b in results(restored)] == ["toolu_0_0", "toolu_0_1"]


# ---- resuming tool calls


def intent(name: str, effect: Effect) -> tuple[list[Entry], Json]:
    """A journal that ends with the intent to run one call, and the call."""
    given = {"at": 1} if name == "look" else {"amount": 1} if name == "pay" else {"to": 1}
    call = {"type": "tool_use", "id": "toolu_0_0", "name": name, "input": given}
    reply = ModelCompleted("m", 1, MODEL, [call], "tool_use", DEFAULT_USAGE, "p", 900, 400, "settled")
    return [reply, ToolRequested("toolu_0_0", 1, name, given, effect)], call


@pytest.mark.parametrize(("name", "effect"), [("look", "read"), ("pay", "write")])
async def test_a_repeatable_call_without_a_result_runs_again_under_its_id(name: str, effect: Effect) -> None:
    entries, _ = intent(name, effect)
    log, journal = Log(), MemoryJournal()
    model = ScriptedModel([says("never"), says("done")])
    outcome = await play(make_agent(log.tools), make_ports(model, journal), State.restore([TASK], entries))
    assert outcome == Completed("done")
    assert log.began == {"toolu_0_0": 1}
    assert types(journal)[0] == "tool.completed"  # the intent is not recorded twice


@pytest.mark.parametrize(("name", "effect"), [("change", "write"), ("erase", "destructive"), ("gone", "write")])
async def test_any_other_call_without_a_result_needs_a_person(name: str, effect: Effect) -> None:
    entries, call = intent(name, effect)
    log, journal, model = Log(), MemoryJournal(), ScriptedModel([])
    outcome = await play(make_agent(log.tools), make_ports(model, journal), State.restore([TASK], entries))
    assert outcome == Suspended("needs_reconcile", [call])
    assert not log.began
    assert journal.entries == []


# ---- running tools


async def test_calls_of_one_reply_overlap() -> None:
    all_three = asyncio.Barrier(3)

    @tool(effect="read")
    async def meet(number: int) -> int:
        """Waits for the others."""
        await all_three.wait()
        return number

    state = State([TASK])
    model = ScriptedModel([calls(*(("meet", {"number": n}) for n in range(3))), says("met")])
    async with asyncio.timeout(20):
        assert await play(make_agent([meet]), make_ports(model), state) == Completed("met")
    assert [b["content"] for b in results(state)] == [as_data("meet", number) for number in "012"]


async def test_no_more_calls_overlap_than_the_agent_allows() -> None:
    pair = asyncio.Barrier(2)
    running: set[str] = set()
    peaks: list[int] = []

    @tool(effect="read")
    async def meet(number: int) -> None:
        """Waits for one other."""
        running.add(tool_context().call_id)
        peaks.append(len(running))
        await pair.wait()
        running.remove(tool_context().call_id)

    model = ScriptedModel([calls(*(("meet", {"number": n}) for n in range(6))), says("met")])
    async with asyncio.timeout(20):
        assert await play(make_agent([meet], parallel_tools=2), make_ports(model)) == Completed("met")
    assert max(peaks) == 2
    assert len(peaks) == 6


async def test_each_result_is_recorded_as_it_lands() -> None:
    journal = MemoryJournal()
    second_is_recorded = asyncio.Event()

    class Watching(MemoryJournal):
        async def record(self, *entries: Entry) -> None:
            journal.entries.extend(entries)
            if any(isinstance(e, ToolCompleted) and e.call_id == "toolu_0_1" for e in entries):
                second_is_recorded.set()

    @tool(effect="read")
    async def first() -> str:
        """Ends after the second."""
        await second_is_recorded.wait()
        return "first"

    @tool(effect="read")
    async def second() -> str:
        """Ends at once."""
        return "second"

    state = State([TASK])
    model = ScriptedModel([calls(("first", {}), ("second", {})), says("done")])
    async with asyncio.timeout(20):
        await play(make_agent([first, second]), make_ports(model, Watching()), state)
    assert [e.name for e in journal.entries if isinstance(e, ToolCompleted)] == ["second", "first"]
    assert [b["content"] for b in results(state)] == [as_data(name, name) for name in ("first", "second")]


async def test_failures_of_tools_are_results_that_the_model_can_act_on() -> None:
    secret = "hunter2"

    @tool(effect="read")
    async def break_() -> None:
        """Breaks."""
        raise RuntimeError(f"cannot log in with {secret}")

    @tool(effect="read")
    async def complain() -> None:
        """Complains."""
        raise ToolError("the order is closed", code="closed")

    @tool(effect="read", timeout=0.01)
    async def wait() -> None:
        """Waits for ever."""
        await asyncio.Event().wait()

    state, journal = State([TASK]), MemoryJournal()
    asked: list[tuple[str, Json]] = [
        ("break_", {}),
        ("complain", {}),
        ("wait", {}),
        ("look", {"at": "x"}),
        ("nowhere", {}),
        ("look", {"at": 1}),
    ]
    model = ScriptedModel([calls(*asked), says("sorry")])
    outcome = await play(make_agent([break_, complain, wait, look]), make_ports(model, journal), state)
    assert outcome == Completed("sorry")
    assert errors(state) == ["tool_failed", "closed", "timeout", "invalid_arguments", "unknown_tool"]
    assert "the order is closed" in results(state)[1]["content"]
    assert secret not in str(journal.entries) + str(model.requests)
    assert state.usage.tool_calls == 6


async def test_a_journal_that_refuses_stops_the_other_tools_too() -> None:
    begun, cut = asyncio.Event(), asyncio.Event()

    class Fenced(MemoryJournal):
        async def record(self, *entries: Entry) -> None:
            if any(isinstance(e, ToolCompleted) for e in entries):
                raise StaleAttemptError("another attempt owns the job")
            await super().record(*entries)

    @tool(effect="read")
    async def wait() -> None:
        """Waits for ever."""
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cut.set()

    @tool(effect="read")
    async def end() -> None:
        """Ends once the other one runs."""
        await begun.wait()

    model = ScriptedModel([calls(("wait", {}), ("end", {})), says("never")])
    with pytest.raises(StaleAttemptError):
        await play(make_agent([wait, end]), make_ports(model, Fenced()))
    assert cut.is_set()


async def test_the_context_of_a_call_comes_from_its_port(tmp_path: Path) -> None:
    @tool(effect="read")
    def where() -> str:
        """Says where it works."""
        context = tool_context()
        return f"{context.job_id} {context.call_id} {context.workspace == tmp_path}"

    state = State([TASK])
    context: Callable[[str], ToolContext] = lambda call_id: ToolContext("job_7", call_id, tmp_path)  # noqa: E731
    await play(
        make_agent([where]), make_ports(ScriptedModel([calls(("where", {})), says("ok")]), context=context), state
    )
    assert results(state)[0]["content"] == as_data("where", "job_7 toolu_0_0 True")


async def test_a_registry_may_stand_in_for_the_agents_tools() -> None:
    state = State([TASK])
    model = ScriptedModel([calls(("look", {"at": 5})), says("five")])
    agent = make_agent()
    outcome = await run(state, agent=agent, budget=agent.budget, ports=make_ports(model), registry=Registry([look]))
    assert outcome == Completed("five")
    assert results(state)[0]["content"] == as_data("look", '{"seen": 5}')
