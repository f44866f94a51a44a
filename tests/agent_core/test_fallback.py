"""Targets: which model at which server is asked, who is asked next, and what the fleet learns of it."""

from __future__ import annotations

from typing import Any

import pytest

from agent_core import Budget, Completed, ModelError
from agent_core.defaults import MemoryJournal
from agent_core.entries import ModelCompleted, ModelFailed, ModelStarted
from agent_core.outcomes import Deferred, Outcome
from agent_core.ports import Draft, Request
from agent_core.state import State
from agent_core.targets import Target
from agent_core.testing import ScriptedModel, says
from agent_core.turn import Backoff
from agent_core.types import Json
from tests.agent_core.harness import AT_ONCE, MODEL, TASK, make_agent, make_ports, play, reread

SPARE = "claude-haiku-4-5"
DOWN = ModelError("overloaded", "busy", retryable=True, billed=False)
LONG = ModelError("rate_limited", "busy", retryable=True, retry_after=60.0, billed=False)
LOCKED = ModelError("authentication", "no such key", retryable=False, billed=False)
WRONG = ModelError("invalid_request", "no", retryable=False, billed=False)


class Server:
    """A server of models; each of its calls has the next outcome, an answer after the last. `asked` says for whom."""

    def __init__(self, name: str, *faults: ModelError) -> None:
        self.name = name
        self.faults = list(faults)
        self.asked: list[str] = []
        self._prices = ScriptedModel([])

    async def complete(self, request: Request, draft: Draft) -> None:
        self.asked.append(request.model)
        if self.faults:
            raise self.faults.pop(0)
        reply = says(f"{request.model} at {self.name}")
        draft.started, draft.content, draft.usage = True, reply["content"], reply["usage"]
        draft.stop_reason = reply["stop_reason"]

    def price(self, model: str, usage: Json, extra: Json | None = None) -> int:
        return self._prices.price(model, usage, extra) if self.name == "own" else 7

    def worst_case(self, model: str, input_tokens: int, max_tokens: int, extra: Json | None = None) -> int:
        return self._prices.worst_case(model, input_tokens, max_tokens, extra) if self.name == "own" else 70

    def affordable(self, model: str, input_tokens: int, micros: int, extra: Json | None = None) -> int:
        return self._prices.affordable(model, input_tokens, micros, extra)

    @property
    def price_version(self) -> str:
        return self.name


class Breakers:
    """Breakers of which some are open, and what they were told."""

    def __init__(self, *opened: str) -> None:
        self.opened = opened
        self.reports: list[tuple[str, bool, str]] = []

    async def allows(self, target: str) -> bool:
        return target not in self.opened

    async def report(self, target: str, ok: bool, code: str = "") -> None:
        self.reports.append((target, ok, code))


async def ask(
    own: Server,
    second: Server | None = None,
    *,
    breakers: Breakers | None = None,
    backoff: Backoff = AT_ONCE,
    **more: Any,
) -> tuple[Outcome, MemoryJournal, State]:
    journal, state = MemoryJournal(), State([TASK])
    agent = make_agent(**{"fallbacks": [SPARE], "budget": Budget(usd=None), **more})
    servers = {} if second is None else {"second": second}
    ports = make_ports(own, journal, backoff=backoff, servers=servers, breakers=breakers or Breakers())
    return await play(agent, ports, state), journal, state


async def test_the_first_target_is_asked_while_it_answers() -> None:
    own = Server("own")
    assert (await ask(own))[0] == Completed(f"{MODEL} at own")
    assert own.asked == [MODEL]


async def test_the_next_one_is_asked_when_the_attempts_are_spent() -> None:
    own = Server("own", DOWN, DOWN, DOWN)
    outcome, journal, state = await ask(own)
    assert outcome == Completed(f"{SPARE} at own")
    assert own.asked == [MODEL] * 3 + [SPARE]
    assert [e.model for e in journal.entries if isinstance(e, ModelStarted)] == own.asked
    assert [e.model for e in journal.entries if isinstance(e, ModelFailed)] == [MODEL] * 3
    assert (state.step, state.usage.model_calls) == (1, 4)


async def test_a_passing_failure_stays_with_its_target() -> None:
    own = Server("own", DOWN, DOWN)
    assert (await ask(own))[0] == Completed(f"{MODEL} at own")


async def test_a_wait_that_is_too_long_is_not_waited_where_there_is_another() -> None:
    own = Server("own", LONG)
    assert (await ask(own))[0] == Completed(f"{SPARE} at own")
    assert own.asked == [MODEL, SPARE]


@pytest.mark.parametrize("code", ["authentication", "permission", "not_found"])
async def test_a_target_that_will_not_have_the_call_is_passed_over(code: str) -> None:
    own = Server("own", ModelError(code, "no", retryable=False, billed=False))
    assert (await ask(own))[0] == Completed(f"{SPARE} at own")


async def test_a_call_that_is_wrong_is_wrong_everywhere() -> None:
    own = Server("own", WRONG)
    with pytest.raises(ModelError, match="no"):
        await ask(own)
    assert own.asked == [MODEL]


async def test_another_server_is_asked_at_its_own_price() -> None:
    own, second = Server("own", DOWN, DOWN, DOWN), Server("second")
    outcome, journal, _ = await ask(own, second, fallbacks=["local@second"])
    assert outcome == Completed("local at second")
    *_, started, completed = journal.entries
    assert isinstance(started, ModelStarted)
    assert isinstance(completed, ModelCompleted)
    assert (started.server, started.reserved, started.price_version) == ("second", 70, "second")
    assert (completed.settled, completed.price_version) == (7, "second")
    restored = State.restore([TASK], reread(journal.entries))
    assert restored.usage.cost == 7


async def test_a_server_that_the_worker_does_not_know_is_passed_over_or_named() -> None:
    outcome, _, _ = await ask(Server("own", LOCKED), Server("second"), fallbacks=["local@third", "local@second"])
    assert outcome == Completed("local at second")
    with pytest.raises(ModelError, match="knows no model server 'third'; those in NIGHTSHIFT_MODEL_SERVERS: second"):
        await ask(Server("own", LOCKED), Server("second"), fallbacks=["local@third"])


async def test_when_no_target_answers_the_run_is_put_off() -> None:
    outcome, _, _ = await ask(Server("own", *[DOWN] * 6))
    assert isinstance(outcome, Deferred)
    assert outcome.code == "overloaded"


async def test_one_that_is_locked_does_not_end_a_run_that_another_may_take_later() -> None:
    outcome, _, _ = await ask(Server("own", LONG, LOCKED))
    assert isinstance(outcome, Deferred)
    assert (outcome.code, outcome.delay >= 60) == ("rate_limited", True)
    with pytest.raises(ModelError, match="no such key"):
        await ask(Server("own", LOCKED, LOCKED))


async def test_the_role_decides_whom_to_ask_first() -> None:
    agent = make_agent(models={"planner": "claude-opus-4-5"}, fallbacks=[SPARE, MODEL, "local@second"])
    assert [t.name for t in agent.targets("planner")] == ["claude-opus-4-5", SPARE, MODEL, "local@second"]
    assert [t.name for t in agent.targets("executor")] == [MODEL, SPARE, "local@second"]


# ---- breakers


async def test_a_target_whose_breaker_is_open_is_not_asked() -> None:
    own = Server("own")
    assert (await ask(own, breakers=Breakers(MODEL)))[0] == Completed(f"{SPARE} at own")
    assert own.asked == [SPARE]


async def test_with_every_breaker_open_the_run_is_put_off_and_nothing_is_reserved() -> None:
    own = Server("own")
    outcome, journal, _ = await ask(own, breakers=Breakers(MODEL, SPARE))
    assert isinstance(outcome, Deferred)
    assert (outcome.code, own.asked, journal.entries) == ("circuit_open", [], [])


async def test_what_kept_a_target_from_answering_is_told_before_an_open_breaker() -> None:
    outcome, _, _ = await ask(Server("own", LONG), breakers=Breakers(SPARE))
    assert isinstance(outcome, Deferred)
    assert outcome.code == "rate_limited"


async def test_breakers_learn_what_became_of_each_call() -> None:
    breakers = Breakers()
    await ask(Server("own", DOWN, DOWN, DOWN), Server("second"), fallbacks=["local@second"], breakers=breakers)
    assert breakers.reports == [(MODEL, False, "overloaded")] * 3 + [("local@second", True, "")]


async def test_a_single_target_is_asked_whatever_its_breaker_says() -> None:
    breakers = Breakers(MODEL)
    assert (await ask(Server("own"), breakers=breakers, fallbacks=[]))[0] == Completed(f"{MODEL} at own")
    assert breakers.reports == []


# ---- names


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("claude-haiku-4-5", Target("claude-haiku-4-5")),
        ("local@second", Target("local", "second")),
        ("claude-haiku-4-5@20251001", Target("claude-haiku-4-5@20251001")),
        ("claude-haiku-4-5@20251001@second", Target("claude-haiku-4-5@20251001", "second")),
        ("org/model@v2@my-server_2", Target("org/model@v2", "my-server_2")),
    ],
)
def test_a_target_is_a_model_and_a_server(text: str, target: Target) -> None:
    assert Target.parse(text) == target
    assert target.name == text


@pytest.mark.parametrize("text", ["", " ", "@second", "model@", "model@Second", "model@two words"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no target"):
        Target.parse(text)
