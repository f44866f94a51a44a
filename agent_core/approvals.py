"""When a tool call waits for a person, and on which terms: what `Agent(approvals=…)` says of its tools."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from agent_core.ports import Decision
from agent_core.questions import ask_human, is_question
from agent_core.tools import Tool
from agent_core.types import Effect, Json, is_amount, micros

if TYPE_CHECKING:
    from agent_core.agent import Agent

WEEK = 7 * 86_400
A_RULE = '"always", "never" or ask(…)'
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Asks a person about a tool's calls: about all of them, or those that `when` or `above_usd` picks.

    `when` is given a call's input; when it raises, a person is asked. `above_usd` picks the calls with whose price the
    job has cost more than that many dollars. `expires_in` is in seconds, after which `on_expiry` decides; None is for
    ever. With `requester_may_decide=False` the API key that submitted the job cannot decide.
    """

    when: Callable[[Json], object] | None = None
    above_usd: str | None = None
    expires_in: float | None = WEEK
    on_expiry: Literal["deny", "approve"] = "deny"
    requester_may_decide: bool = True

    @property
    def fault(self) -> str | None:
        """What is wrong with the terms."""
        if self.when is not None and not callable(self.when):
            return "when is no function"
        if self.above_usd is not None and not is_amount(self.above_usd):
            return 'above_usd is no decimal string above 0, like "0.50"'
        if self.expires_in is not None and not _is_seconds(self.expires_in):
            return "expires_in is no number of seconds above 0"
        if self.on_expiry not in ("deny", "approve"):
            return "on_expiry is neither deny nor approve"
        return None if isinstance(self.requester_may_decide, bool) else "requester_may_decide is neither True nor False"

    def to_json(self) -> Json:
        """The terms as a definition has them; a rule on the input is named there, for the worker has its code."""
        terms: Json = {"expires_in": self.expires_in, "on_expiry": self.on_expiry}
        terms |= {} if self.requester_may_decide else {"requester_may_decide": False}
        terms |= {"when": _name(self.when)} if self.when is not None else {}
        return terms | ({"above_usd": self.above_usd} if self.above_usd is not None else {})


ask = Ask
Rule = Literal["always", "never"] | Ask
ALWAYS = Ask()


class Policy:
    """The approver of an agent. `spent` gives what the job has cost so far, in micro-dollars."""

    def __init__(self, agent: Agent, spent: Callable[[], int] = lambda: 0) -> None:
        self._rules = agent.approvals
        self._auto = frozenset(agent.auto_approve)
        self._registry = agent.registry
        self._agent_version = agent.version
        self._spent = spent

    def decide(self, name: str, input: Json, effect: Effect, call_id: str) -> Decision:
        """See `ports.Approver`."""
        if self.asks_question(name):
            return "ask" if is_question(input) else "run"  # which tells the model what is wrong with it
        terms = self._terms(name, effect)
        return "ask" if terms is not None and self._picks(terms, name, input) else "run"

    def asks_question(self, name: str) -> bool:
        """Whether a call is a question to a person, whose answer is its result."""
        found = self._registry.get(name)
        return found is not None and _is_asking(found)

    def effect(self, name: str) -> Effect:
        """The effect class of a tool."""
        return self._registry.effect(name)

    def terms(self, name: str) -> Ask:
        """The terms on which a call waits."""
        rule = self._rules.get(name)
        return rule if isinstance(rule, Ask) else ALWAYS

    def version(self, name: str) -> str:
        """Tells policies about a tool apart: the hash of the terms and of the agent's version."""
        text = json.dumps([self.terms(name).to_json(), self._agent_version], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _terms(self, name: str, effect: Effect) -> Ask | None:
        rule = self._rules.get(name)
        if rule is None:
            rule = "always" if effect == "destructive" and name not in self._auto else "never"
        return None if rule == "never" else ALWAYS if rule == "always" else rule

    def _picks(self, terms: Ask, name: str, input: Json) -> bool:
        if terms.when is None and terms.above_usd is None:
            return True
        if terms.above_usd is not None and self._spent() + self._registry.price(name) > micros(terms.above_usd):
            return True
        try:
            return terms.when is not None and bool(terms.when(input))
        except Exception:  # a rule that fails must let nothing through
            log.warning("the approval rule of tool %s failed: a person is asked", name, exc_info=True)
            return True


def fault_of(approvals: object, tools: list[Tool], auto_approve: list[str]) -> str | None:
    """What is wrong with an agent's `approvals`."""
    if not isinstance(approvals, dict):
        return f"expected a dictionary of {A_RULE} by the names of tools"
    for name, rule in approvals.items():
        found = next((tool for tool in tools if tool.name == name), None)
        if found is None:
            return f"{name!r} is none of its tools"
        if name in auto_approve:
            return f"{name!r} is in auto_approve too"
        if not isinstance(rule, Ask) and rule not in ("always", "never"):
            return f"expected {A_RULE} for {name!r}, not {rule!r}"
        if isinstance(rule, Ask) and rule.fault:
            return f"{name!r}: {rule.fault}"
        if _is_asking(found) and (rule == "never" or (isinstance(rule, Ask) and rule.on_expiry == "approve")):
            return f"{name!r}: only a person can answer a question"
    return None


def definition_of(approvals: Mapping[str, Rule]) -> Json:
    """The rules as an agent's definition has them."""
    return {name: rule.to_json() if isinstance(rule, Ask) else rule for name, rule in sorted(approvals.items())}


def rebuilt(published: Json, local: Mapping[str, Rule]) -> dict[str, Rule]:
    """The rules of a published definition, with the functions that they name. Raises KeyError when one is missing."""
    return {name: _rebuilt(rule, local.get(name)) for name, rule in published.items()}


def _rebuilt(terms: Any, local: Rule | None) -> Rule:
    if isinstance(terms, str):
        return cast(Rule, terms)
    name = terms.get("when")
    if name is None:
        return Ask(**terms)
    if not isinstance(local, Ask) or local.when is None or _name(local.when) != name:
        raise KeyError(name)
    return Ask(**{**terms, "when": local.when})


def _is_asking(tool: Tool) -> bool:
    return tool.function is ask_human.function


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _name(function: Callable[[Json], object]) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)
