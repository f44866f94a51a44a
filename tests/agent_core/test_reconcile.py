"""What became of an interrupted call: the tool is asked, its answer is recorded, and without one a person is asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from agent_core import Completed, DefinitionError, DidNotHappen, Happened, Suspended, Tool, tool, tool_context
from agent_core.defaults import MemoryJournal
from agent_core.entries import Entry, ModelCompleted, ToolCompleted, ToolReconciled, ToolRequested
from agent_core.state import State
from agent_core.testing import DEFAULT_USAGE, ScriptedModel, calls, says
from agent_core.tool_calls import FINISHING_SECONDS
from agent_core.types import Json
from tests.agent_core.harness import MODEL, TASK, Killed, MortalJournal, make_agent, make_ports, play, reread

CALL: Json = {"type": "tool_use", "id": "toolu_0_0", "name": "pay", "input": {"amount": 3}}
INTENT = ToolRequested("toolu_0_0", 1, "pay", {"amount": 3}, "write")
INTERRUPTED: list[Entry] = [
    ModelCompleted("m", 1, MODEL, [CALL], "tool_use", DEFAULT_USAGE, "p", 900, 400, "settled"),
    INTENT,
]


class Bank:
    """Payments by their idempotency keys, and how often each tool and its reconcile function ran."""

    def __init__(self) -> None:
        self.paid: dict[str, int] = {}
        self.runs = 0
        self.asked = 0

    def pay_tool(self) -> Tool:
        async def look(amount: int, currency: str = "EUR") -> Happened | DidNotHappen:
            self.asked += 1
            found = self.paid.get(tool_context().call_id)
            return DidNotHappen() if found is None else Happened({"paid": found})

        @tool(effect="write", reconcile=look)
        async def pay(amount: int, currency: str = "EUR") -> Json:
            """Pays."""
            self.runs += 1
            assert tool_context().call_id not in self.paid
            self.paid[tool_context().call_id] = amount
            return {"paid": amount}

        return pay


def paying(reconcile: Callable[..., Any], **options: Any) -> Tool:
    @tool(effect="write", reconcile=reconcile, **options)
    async def pay(amount: int, currency: str = "EUR") -> str:
        """Pays."""
        return f"paid {amount} {currency}"

    return pay


async def resume(
    pay: Tool, entries: list[Entry] = INTERRUPTED, journal: MemoryJournal | None = None
) -> tuple[Any, State]:
    state = State.restore([TASK], entries)
    model = ScriptedModel([says("never"), says("done")])
    return await play(make_agent([pay]), make_ports(model, journal), state), state


# ---- answers


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_call_that_happened_has_its_result_and_is_not_run(threaded: bool) -> None:
    async def found(amount: int, currency: str = "EUR") -> Happened:
        return Happened({"paid": amount, "in": currency, "under": tool_context().call_id})

    def found_in_a_thread(amount: int, currency: str = "EUR") -> Happened:
        return Happened({"paid": amount, "in": currency, "under": tool_context().call_id})

    journal = MemoryJournal()
    outcome, _ = await resume(paying(found_in_a_thread if threaded else found), journal=journal)
    assert outcome == Completed("done")
    said, result = journal.entries[:2]
    assert said == ToolReconciled("toolu_0_0", 1, "pay", "happened", "reconcile")
    assert isinstance(result, ToolCompleted)
    assert json.loads(result.content) == {"paid": 3, "in": "EUR", "under": "toolu_0_0"}
    assert "tool.requested" not in [entry.TYPE for entry in journal.entries]


async def test_a_call_that_did_not_happen_is_run_under_a_new_intent() -> None:
    bank, journal = Bank(), MemoryJournal()
    outcome, state = await resume(bank.pay_tool(), journal=journal)
    assert (outcome, bank.runs, bank.asked) == (Completed("done"), 1, 1)
    assert [entry.TYPE for entry in journal.entries[:3]] == ["tool.reconciled", "tool.requested", "tool.completed"]
    assert journal.entries[1] == INTENT
    assert bank.paid == {"toolu_0_0": 3}
    assert state.usage.tool_calls == 1


async def raises(amount: int, currency: str = "EUR") -> Happened:
    raise RuntimeError("the ledger is away")


async def knows_nothing(amount: int, currency: str = "EUR") -> None:
    return None


async def says_something_else(amount: int, currency: str = "EUR") -> bool:
    return True


async def answers_what_is_no_json(amount: int, currency: str = "EUR") -> Happened:
    return Happened(object())


async def takes_for_ever(amount: int, currency: str = "EUR") -> Happened:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize("look", [raises, knows_nothing, says_something_else, answers_what_is_no_json, takes_for_ever])
async def test_without_an_answer_a_person_is_asked(look: Callable[..., Any]) -> None:
    journal = MemoryJournal()
    outcome, _ = await resume(paying(look, timeout=0.05), journal=journal)
    assert outcome == Suspended("needs_reconcile", [CALL])
    assert journal.entries == []


async def test_a_call_that_is_not_run_yet_is_not_asked_about() -> None:
    bank = Bank()
    model = ScriptedModel([calls(("pay", {"amount": 3})), says("done")])
    assert await play(make_agent([bank.pay_tool()]), make_ports(model)) == Completed("done")
    assert (bank.runs, bank.asked) == (1, 0)


async def test_what_was_found_not_to_have_happened_is_unknown_again_once_it_has_a_new_intent() -> None:
    not_happened = ToolReconciled("toolu_0_0", 1, "pay", "not_happened", "person")
    state = State.restore([TASK], [*INTERRUPTED, not_happened])
    assert state.undone == {"toolu_0_0"}
    outcome, _ = await resume(paying(knows_nothing), [*INTERRUPTED, not_happened])
    assert outcome == Completed("done")
    outcome, _ = await resume(paying(knows_nothing), [*INTERRUPTED, not_happened, INTENT])
    assert outcome == Suspended("needs_reconcile", [CALL])


async def test_a_definition_of_another_process_may_lack_the_function() -> None:
    plain = paying(knows_nothing)
    bare = Tool(**{name: getattr(plain, name) for name in plain.__dataclass_fields__} | {"reconcile": None})
    assert bare.definition()["reconcilable"] is True
    assert (await resume(bare))[0] == Suspended("needs_reconcile", [CALL])


async def test_killed_at_any_record_it_pays_once_and_never_asks_a_person() -> None:
    script = [calls(("pay", {"amount": 3}), ("pay", {"amount": 4})), says("done")]
    undisturbed = MemoryJournal()
    await play(make_agent([Bank().pay_tool()]), make_ports(ScriptedModel(script), undisturbed))
    for first in range(1, len(undisturbed.entries) + 1):
        for second in (1, 2, 3, 4, 99):
            bank, entries = Bank(), list[Entry]()
            for dies_at in (first, second, 99):
                for keeps_last in (False, True):
                    journal = MortalJournal(len(entries) + dies_at, keeps_last=keeps_last)
                    journal.entries = entries
                    state = State.restore([TASK], reread(entries))
                    try:
                        outcome = await play(
                            make_agent([bank.pay_tool()]), make_ports(ScriptedModel(script), journal), state
                        )
                    except Killed:
                        outcome = None
                    assert not isinstance(outcome, Suspended)
            assert outcome == Completed("done"), (first, second)
            assert sorted(bank.paid.values()) == [3, 4]
            assert bank.runs == 2
            assert sum(isinstance(entry, ToolCompleted) for entry in entries) == 2


# ---- definitions


async def other_parameters(amount: int) -> None: ...


def generator(amount: int, currency: str = "EUR") -> Any:
    yield amount


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"reconcile": 3}, "reconcile is 3; it must be a function"),
        ({"reconcile": generator}, "must be a function"),
        ({"reconcile": other_parameters}, r"takes \(amount\); it must take what the tool takes \(amount, currency\)"),
        ({"reconcile": dict}, "reconcile"),
        ({"reconcile": knows_nothing, "effect": "read"}, "has no use here"),
        ({"reconcile": knows_nothing, "idempotent": True}, "has no use here"),
    ],
)
def test_a_wrong_reconcile_function_is_refused_at_definition(options: Json, reason: str) -> None:
    async def pay(amount: int, currency: str = "EUR") -> None:
        """Pays."""

    with pytest.raises(DefinitionError, match=reason):
        tool(**{"effect": "write", **options})(pay)


def test_the_version_knows_that_a_tool_is_reconcilable() -> None:
    assert paying(knows_nothing).definition()["reconcilable"] is True

    @tool(effect="write")
    def plain() -> None:
        """Does nothing."""

    assert "reconcilable" not in plain.definition()


# ---- a cancellation while a tool runs


async def test_a_call_that_must_not_be_repeated_may_end_when_the_run_is_cancelled() -> None:
    running, may_end = asyncio.Event(), asyncio.Event()

    @tool(effect="write")
    async def work() -> str:
        """Works."""
        running.set()
        await may_end.wait()
        return "worked"

    journal = MemoryJournal()
    run = asyncio.create_task(play(make_agent([work]), make_ports(ScriptedModel([calls(("work", {}))]), journal)))
    await running.wait()
    run.cancel()
    await asyncio.sleep(0)
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert journal.entries[-1].TYPE == "tool.completed"


async def test_a_call_that_does_not_end_is_cut_off_and_stays_open() -> None:
    running = asyncio.Event()

    @tool(effect="write")
    async def work() -> str:
        """Works for ever."""
        running.set()
        await asyncio.Event().wait()
        return "never"

    journal = MemoryJournal()
    run = asyncio.create_task(play(make_agent([work]), make_ports(ScriptedModel([calls(("work", {}))]), journal)))
    await running.wait()
    run.cancel()
    async with asyncio.timeout(FINISHING_SECONDS + 20):
        with pytest.raises(asyncio.CancelledError):
            await run
    assert journal.entries[-1].TYPE == "tool.requested"
