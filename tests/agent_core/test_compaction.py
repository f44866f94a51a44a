"""Long conversations: when a summary is asked for, what it takes the place of, and what happens without one."""

from __future__ import annotations

import re
from typing import Any

import pytest

from agent_core import Budget, Completed, ModelError, Stopped, tool
from agent_core.agent import Agent
from agent_core.compaction import FULL, SUMMARISE, is_sound
from agent_core.defaults import MemoryJournal, NoEvents
from agent_core.entries import Compacted, Entry, ModelCompleted, ModelStarted, ModelSubmitted, ResultsCleared
from agent_core.outcomes import Batched, Deferred, Outcome
from agent_core.patterns import Chain
from agent_core.ports import Draft, Request
from agent_core.state import SUMMARY, State
from agent_core.testing import calls, says
from agent_core.types import Json
from tests.agent_core.harness import TASK, SummingModel, make_agent, make_ports, play, reread, summary_of, texts

WINDOW = 2_000
REPLY = {"content": [{"type": "text", "text": summary_of(2)}], "stop_reason": "max_tokens"}
UNSOUND = [says("I would rather not"), says(""), REPLY, says(summary_of(2, size=WINDOW)), says("no", "refusal")]


@tool(effect="read")
async def read(page: int) -> str:
    """Reads a page."""
    return f"page {page} " + "word " * 300


def reader(**changes: Any) -> Agent:
    defaults = {"tools": [read], "context_window": WINDOW, "max_tokens": 400, "budget": Budget(usd=None, steps=None)}
    return make_agent(**{**defaults, **changes})


def pages(count: int, first: int = 1) -> list[Json]:
    return [calls(("read", {"page": page})) for page in range(first, first + count)]


async def run(
    model: SummingModel, state: State | None = None, journal: MemoryJournal | None = None, **changes: Any
) -> tuple[Outcome, list[Entry], State]:
    state, journal = state or State([TASK]), journal or MemoryJournal()
    outcome = await play(reader(**changes), make_ports(model, journal), state)
    return outcome, journal.entries, state


def pages_in(messages: list[Json]) -> list[int]:
    """Which pages' texts stand in a conversation."""
    return [int(found[1]) for text in results(messages) if (found := re.search(r"page ([0-9]+) word", text))]


def results(messages: list[Json]) -> list[str]:
    blocks = [b for m in messages if isinstance(m["content"], list) for b in m["content"]]
    return [b["content"] for b in blocks if b["type"] == "tool_result"]


async def test_a_long_run_goes_on_from_summaries() -> None:
    model = SummingModel([*pages(20), says("the end")])
    outcome, entries, _ = await run(model)
    assert outcome == Completed("the end")
    summaries = [e for e in entries if isinstance(e, Compacted)]
    assert len(summaries) >= 3
    assert len(model.asked) == len(summaries)
    for request in model.requests:
        size = len(str(request.messages)) // 4
        assert size < WINDOW
        assert texts(request.messages)[0] == "go on"
    assert [e.step for e in entries if isinstance(e, ModelCompleted) and e.role == "executor"] == list(range(1, 22))


async def test_nobody_watches_a_summary_being_written() -> None:
    heard: list[str] = []

    class Heard(NoEvents):
        def text(self, step: int, delta: str) -> None:
            heard.append(delta)

    model = SummingModel([*pages(8), says("now to the end"), says("never")])
    await play(reader(), make_ports(model, events=Heard()), State([TASK]))
    assert model.asked
    assert heard == ["now to the end"]


async def test_a_short_run_is_left_alone() -> None:
    model = SummingModel([*pages(2), says("the end")])
    _, entries, _ = await run(model, context_window=200_000)
    assert not model.asked
    assert not [e for e in entries if isinstance(e, Compacted | ResultsCleared)]


async def test_the_request_for_a_summary() -> None:
    model = SummingModel([*pages(8), says("the end")])
    _, entries, _ = await run(model, models={"summariser": "claude-haiku-4-5"})
    request = model.asked[0]
    assert request.model == "claude-haiku-4-5"
    assert request.extra["tool_choice"] == {"type": "none"}
    assert texts(request.messages)[-1] == SUMMARISE
    started = [e for e in entries if isinstance(e, ModelStarted) and e.role == "summariser"]
    assert started[0].covers == len(request.messages) - 1
    assert all(e.reserved > 0 for e in started)


async def test_nothing_gives_way_that_the_summary_was_not_of() -> None:
    model = SummingModel([*pages(8), says("the end")])
    _, _, state = await run(model)
    covered = [pages_in(request.messages) for request in model.asked]
    kept = pages_in(state.messages)
    assert kept
    assert [page for pages in [*covered, kept] for page in pages] == list(range(1, 9))


async def test_nothing_gives_way_that_came_after_the_summary_was_asked_for() -> None:
    """It may be of an attempt that died, and a person may have said much since."""
    script, journal = [*pages(20), says("the end")], MemoryJournal()
    await run(SummingModel(script), journal=journal, context_window=4 * WINDOW)
    cut = next(n for n, e in enumerate(journal.entries) if isinstance(e, ModelCompleted) and e.role == "summariser")
    state = State.restore([TASK], reread(journal.entries[: cut + 1]))
    covered, unseen = state.covered, pages_in(state.messages[state.head + state.covered :])
    state.say("one more thing: " + "word " * 2_400)
    second = MemoryJournal()
    limit = Budget(usd=None, steps=state.step + 2)
    await run(SummingModel(script), state, second, context_window=4 * WINDOW, budget=limit)
    first, *more = [e for e in second.entries if isinstance(e, Compacted)]
    assert first.covers == covered
    assert len(unseen) > 1
    assert not more
    assert set(unseen) <= set(pages_in(state.messages))


async def test_the_task_and_what_was_last_told_stand_beside_the_summary() -> None:
    history: list[Json] = [{"role": "user", "content": "before"}, {"role": "assistant", "content": "indeed"}, TASK]
    model = SummingModel([says("unused"), *pages(9), says("hm"), *pages(9), says("the end")])
    outcome, _, state = await run(model, State(history), pattern=Chain(["think of it", "write it"]))
    assert outcome == Completed("the end")
    assert state.messages[:2] == history[:2]
    said = texts(state.messages[2:3])
    assert said[:2] == ["go on", "Step 1 of 2: think of it"]
    assert said[2].startswith(SUMMARY)
    assert said[2].endswith("[What you were last told]\nStep 2 of 2: write it")
    assert len(said) == 3, "a summary takes the place of the one before"


async def test_a_summary_takes_the_one_before_up() -> None:
    model = SummingModel([*pages(20), says("the end")])
    await run(model)
    for before, request in zip(model.asked, model.asked[1:], strict=False):
        assert summary_of(model.turn(before)) in texts(request.messages[:1])[1]


@pytest.mark.parametrize("odd", UNSOUND)
async def test_an_unsound_summary_is_asked_for_again(odd: Json) -> None:
    model = SummingModel([*pages(5), says("the end")], odd=[odd])
    outcome, entries, _ = await run(model)
    assert outcome == Completed("the end")
    first = next(e for e in entries if isinstance(e, Compacted | ResultsCleared))
    assert isinstance(first, Compacted)
    assert len(model.asked) == 1 + len([e for e in entries if isinstance(e, Compacted)])


@pytest.mark.parametrize("odd", [*UNSOUND, ModelError("invalid_request", "no", retryable=False, billed=False)])
async def test_without_a_summary_the_oldest_results_go(odd: Json | ModelError) -> None:
    model = SummingModel([*pages(12), says("the end")], odd=[odd] * 100)
    outcome, entries, state = await run(model, context_window=4_000)
    assert outcome == Completed("the end")
    cleared = [e for e in entries if isinstance(e, ResultsCleared)]
    assert cleared
    assert not [e for e in entries if isinstance(e, Compacted)]
    asked = [e.step for e in entries if isinstance(e, ModelStarted) and e.role == "summariser"]
    assert all(asked.count(step) <= 2 for step in asked), "two attempts before each clearing"
    kept = results(state.messages)
    assert kept[0].startswith("[this result of 1,")
    assert all("word word" in result for result in kept[-4:])


async def test_a_summary_that_the_budget_has_no_room_for_is_done_without() -> None:
    model = SummingModel([*pages(6), says("the end")])
    whole, entries, _ = await run(model)
    assert whole == Completed("the end")
    spent, asked = 0, next(e for e in entries if isinstance(e, ModelStarted) and e.role == "summariser")
    for entry in entries[: entries.index(asked)]:
        spent += getattr(entry, "settled", 0)
    journal = MemoryJournal(Budget(usd=f"{(spent + asked.reserved - 1) / 1e6:.6f}"))
    outcome, entries, _ = await run(SummingModel([*pages(6), says("the end")]), journal=journal)
    *_, last = [e for e in entries if isinstance(e, ModelStarted)]
    assert (last.role, last.step > asked.step) == ("executor", True)
    assert isinstance(outcome, Stopped)
    assert outcome.stop_reason == "budget_exceeded"


async def test_a_summariser_without_capacity_puts_the_run_off() -> None:
    busy = ModelError("overloaded", "busy", retryable=True, billed=False)
    model = SummingModel([*pages(6), says("the end")], odd=[busy] * 3)
    outcome, entries, state = await run(model)
    assert isinstance(outcome, Deferred)
    assert outcome.code == "overloaded"
    state = State.restore([TASK], reread(entries))
    outcome, _, _ = await run(model, state=state)
    assert outcome == Completed("the end")


async def test_a_task_that_fills_the_window_is_not_summed_up_at_every_turn() -> None:
    task = State([{"role": "user", "content": "word " * 1_400}])

    @tool(effect="read")
    async def peek(at: int) -> int:
        """Gives little."""
        return at

    model = SummingModel([*(calls(("peek", {"at": at})) for at in range(20)), says("the end")])
    outcome, _, _ = await run(model, task, tools=[peek])
    assert outcome == Completed("the end")
    assert len(model.asked) <= 4


async def test_the_bound_of_the_next_call_stays_one() -> None:
    """What was counted before says nothing of a conversation that was made smaller."""
    model = SummingModel([*pages(20), says("the end")])
    _, entries, _ = await run(model)
    reserved = {e.call_id: e.tokens - e.max_tokens for e in entries if isinstance(e, ModelStarted)}
    for done in entries:
        if isinstance(done, ModelCompleted):
            assert done.usage is not None
            assert done.usage["input_tokens"] <= reserved[done.call_id]


async def test_a_reply_that_paused_is_not_parted_from_the_next_one() -> None:
    script = [item for page in pages(16) for item in (says("wait", "pause_turn"), page)]
    model = SummingModel([*script, says("the end")])
    outcome, _, _ = await run(model)
    assert outcome == Completed("the end")
    for request in model.asked:
        assert request.messages[-1]["role"] == "user"
        assert [m["role"] for m in request.messages].count("user") >= 1
    for request in model.requests:
        roles = [m["role"] for m in request.messages[1:]]
        assert roles[:2] in ([], ["assistant"], ["assistant", "assistant"])


# ---- by way of a batch


class BatchedModel(SummingModel):
    """Gives no reply before it is asked for it a second time, under its batch."""

    async def complete(self, request: Request, draft: Draft) -> None:
        draft.batch_id = request.batch_id or f"batch_of_{request.call_id}"
        if request.batch_id is not None:
            await super().complete(request, draft)


async def test_summaries_come_by_way_of_batches_too() -> None:
    model, entries, outcome = BatchedModel([*pages(8), says("the end")]), list[Entry](), None
    for _ in range(60):
        state, journal = State.restore([TASK], reread(entries)), MemoryJournal()
        outcome, fresh, _ = await run(model, state, journal)
        entries = [*entries, *fresh]
        if not isinstance(outcome, Batched):
            break
    assert outcome == Completed("the end")
    assert [e for e in entries if isinstance(e, Compacted)]
    submitted = [e.call_id for e in entries if isinstance(e, ModelSubmitted)]
    assert len(submitted) == len(set(submitted)) == len([e for e in entries if isinstance(e, ModelCompleted)])


async def test_a_reply_that_a_batch_has_comes_before_any_summary() -> None:
    """What a person says meanwhile may fill the window, and calls of that reply are still to come."""
    model, window = BatchedModel([*pages(10), says("the end")]), 10 * WINDOW
    entries: list[Entry] = []
    for _ in range(9):
        state, journal = State.restore([TASK], reread(entries)), MemoryJournal()
        await run(model, state, journal, context_window=window)
        entries = [*entries, *journal.entries]
    state = State.restore([TASK], reread(entries))
    state.say("word " * 12_000)
    assert state.context_tokens() > FULL * window
    outcome, fresh, _ = await run(model, state, context_window=window)
    assert isinstance(outcome, Batched)
    assert [e.TYPE for e in fresh[:2]] == ["model.completed", "tool.requested"]


@pytest.mark.parametrize(
    ("summary", "sound"),
    [
        (summary_of(3), True),
        (summary_of(3).replace("## Open", "## Closed"), False),
        ("\n".join(reversed(summary_of(3).splitlines())), False),
        ("## Facts\n## Decisions\n## Done\n## Open\n## Next", False),
        (summary_of(3, size=2_000), False),
        ("", False),
    ],
)
def test_a_sound_summary_has_its_sections_says_something_and_is_short(summary: str, sound: bool) -> None:
    assert is_sound(summary, 1_000) is sound
