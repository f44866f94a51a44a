"""What an agent is: a frozen definition that a worker publishes and a version that is the hash of all of it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, field
from typing import Any

import pydantic

from agent_core.approvals import Rule, definition_of, fault_of
from agent_core.delegation import delegation
from agent_core.errors import DefinitionError
from agent_core.guardrails import Check
from agent_core.guardrails import fault_of as fault_of_checks
from agent_core.mcp import SEPARATOR, McpServer
from agent_core.memory import UserMemory
from agent_core.outputs import Output
from agent_core.patterns import Pattern, ReAct
from agent_core.registry import After, Before, Registry
from agent_core.results import A_RESULT_LIMIT, RESULT_CHARS, is_result_limit
from agent_core.schemas import check_schema
from agent_core.server_tools import SERVER_TOOLS
from agent_core.targets import Target
from agent_core.tools import Tool
from agent_core.types import Budget, Json, Role, is_amount

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
A_NAME = "1 to 64 letters, digits, _ and -, a letter first"
SET_BY_THE_LOOP = frozenset({"model", "messages", "system", "tools", "max_tokens", "stream"})
PRICED = frozenset({"cache_control", "extra_body", "service_tier", "speed"})
"""Parameters of a request that change its price, or may hide some that do: a reservation would not be its bound."""
ROUTED = ("planner", "validator", "summariser", "router")
"""Roles that may have a model of their own; the executor's is the agent's."""
EFFORTS = ("low", "medium", "high", "max")
A_TARGET = "models' ids, or model@server with a server's name in the worker's settings"
AN_OUTPUT = "a Pydantic model or a JSON schema"
MCP_SERVERS = "McpServer objects with different names; no tool of the agent's own may be named like one of theirs"
WINDOW = 200_000
BUDGET = "a Budget with limits above 0: usd a decimal string, tokens and steps whole numbers, seconds a number"


@dataclass(frozen=True, kw_only=True)
class Agent:
    """An agent's definition. Raises DefinitionError at once when a field is wrong.

    `model` is a model id of the Messages API, `max_tokens` caps each reply, `budget` is the default of its jobs,
    `pool` names the workers that may run it. A tool result of more than `max_result_chars` characters is kept as an
    artifact and previewed. `auto_approve` lists destructive tools that need no person; `approvals` says by the name of
    a tool which of its calls wait for one: "always", "never", or `ask(…)` with a rule and terms.
    `models` routes calls by role, the rest go to `model`. `cache_ttl` is how long the provider keeps a request's prefix
    for the next one, "5m" or the dearer "1h".
    `fallbacks` are targets (`model` or `model@server`) that are asked, in order, when the one before does not answer.
    `thinking` is True for the model to think as it sees fit, or its budget in tokens; `effort` how hard it should try.
    `output` is what the answer has to be, a Pydantic model or a JSON schema; `pattern` says what leads to it. `agents`
    names those to which it may delegate parts of its task; `server_tools` are those that the model's provider runs.
    `before_tool` and `after_tool` are called around each tool call, and may veto, edit or redact it. At three quarters
    of `context_window` tokens the conversation is summarised. `memory` gives its jobs the long-term memory of their
    user: True, or a UserMemory that says how.
    `extra` goes into each request as it is; what the loop sets itself and what changes the price may not be in it.
    """

    name: str
    instructions: str
    model: str
    tools: list[Tool] = field(default_factory=list)
    description: str = ""
    max_tokens: int = 4096
    budget: Budget = field(default_factory=Budget)
    pool: str = "default"
    auto_approve: list[str] = field(default_factory=list)
    parallel_tools: int = 8
    max_result_chars: int = RESULT_CHARS
    extra: Json = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    cache_ttl: str = "5m"
    approvals: dict[str, Rule] = field(default_factory=dict)
    guardrails: list[Check] = field(default_factory=list)
    fallbacks: list[str] = field(default_factory=list)
    thinking: bool | int | None = None
    effort: str | None = None
    output: type[pydantic.BaseModel] | Json | None = None
    pattern: Pattern = field(default_factory=ReAct)
    agents: list[str] = field(default_factory=list)
    context_window: int = WINDOW
    server_tools: list[str] = field(default_factory=list)
    before_tool: Before | None = None
    after_tool: After | None = None
    mcp: list[McpServer] = field(default_factory=list)
    memory: bool | UserMemory = False

    def __post_init__(self) -> None:
        self._check(_is_name(self.name), "name", A_NAME)
        self._check(_is_text(self.instructions), "instructions", "a text")
        self._check(_is_target(self.model), "model", "the id of a model, or model@server")
        self._check(isinstance(self.description, str), "description", "a text, or an empty one")
        self._check(_is_count(self.max_tokens), "max_tokens", "a whole number above 0")
        self._check(_is_name(self.pool), "pool", A_NAME)
        self._check(_is_count(self.parallel_tools), "parallel_tools", "a whole number above 0")
        self._check(is_result_limit(self.max_result_chars), "max_result_chars", A_RESULT_LIMIT)
        self._check(isinstance(self.budget, Budget) and _sound(self.budget), "budget", BUDGET)
        self._check(isinstance(self.tools, list | tuple), "tools", "a list of functions decorated with @tool")
        for item in self.tools:
            self._check(isinstance(item, Tool), "tools", "functions decorated with @tool", item)
        names = [t.name for t in self.tools]
        self._check(len(set(names)) == len(names), "tools", "tools with different names", names)
        self._check(_are_servers(self.mcp, self.tools), "mcp", MCP_SERVERS)
        known = isinstance(self.auto_approve, list | tuple) and all(self._may_have(name) for name in self.auto_approve)
        self._check(known, "auto_approve", f"a list of names of its tools ({names})")
        self._check(_is_json(self.extra), "extra", "a dictionary of plain JSON data")
        routed = isinstance(self.models, dict) and all(r in ROUTED and _is_target(m) for r, m in self.models.items())
        self._check(routed, "models", f"ids of models, by any of the roles {', '.join(ROUTED)}")
        self._check(self.cache_ttl in ("5m", "1h"), "cache_ttl", "5m or 1h")
        self._check(isinstance(self.fallbacks, list | tuple), "fallbacks", A_TARGET)
        for name in self.fallbacks:
            self._check(_is_target(name), "fallbacks", A_TARGET, name)
        thinks = (
            self.thinking is None
            or isinstance(self.thinking, bool)
            or (_is_count(self.thinking) and self.thinking < self.max_tokens)
        )
        self._check(thinks, "thinking", "True, False, or a number of tokens below max_tokens")
        self._check(self.effort in (None, *EFFORTS), "effort", ", ".join(EFFORTS))
        self._check(_fits(self.output), "output", AN_OUTPUT)
        known = isinstance(self.server_tools, list | tuple) and all(name in SERVER_TOOLS for name in self.server_tools)
        self._check(known, "server_tools", f"names out of {', '.join(SERVER_TOOLS)}")
        for hook in ("before_tool", "after_tool"):
            self._check(getattr(self, hook) is None or callable(getattr(self, hook)), hook, "a function")
        self._check(isinstance(self.pattern, Pattern), "pattern", "a pattern of agent_core.patterns")
        named = isinstance(self.agents, list | tuple) and all(_is_name(name) for name in self.agents)
        self._check(named, "agents", "a list of agents' names")
        self._check(
            _is_count(self.context_window) and self.context_window >= 4 * self.max_tokens,
            "context_window",
            "a number of tokens, at least four times max_tokens",
        )
        self._check(isinstance(self.memory, bool | UserMemory), "memory", "True, False or a UserMemory")
        wrong = fault_of(self.approvals, list(self.tools), list(self.auto_approve))
        self._check(wrong is None, "approvals", f"rules that hold: {wrong}")
        wrong = fault_of_checks(self.guardrails)
        self._check(wrong is None, "guardrails", f"checks that hold: {wrong}")
        fixed = sorted((SET_BY_THE_LOOP | PRICED) & self.extra.keys())
        self._check(not fixed, "extra", f"none of {', '.join(fixed)}: the loop sets them, or they change the price")

    def _check(self, ok: bool, field_name: str, accepted: str, value: Any = ...) -> None:
        if not ok:
            held = getattr(self, field_name) if value is ... else value
            raise DefinitionError(f"agent {self.name!r}: {field_name} is {held!r}; expected {accepted}")

    def _may_have(self, name: str) -> bool:
        """Whether it has a tool; those of its MCP servers are not known here."""
        return any(name == t.name for t in self.tools) or any(name.startswith(s.exposed("")) for s in self.mcp)

    @property
    def registry(self) -> Registry:
        tools = [*self.tools, *self._delegation()]
        return Registry(tools, self.max_result_chars, before=self.before_tool, after=self.after_tool)

    def _delegation(self) -> list[Tool]:
        return [delegation(tuple(self.agents))] if self.agents else []

    @property
    def parameters(self) -> Json:
        """What each request carries besides its messages and tools."""
        found = dict(self.extra)
        if self.cache_ttl == "1h":
            found["cache_control"] = {"type": "ephemeral", "ttl": "1h"}
        if self.thinking is not None:
            found["thinking"] = _thinking(self.thinking)
        if self.effort is not None:
            found["output_config"] = {**found.get("output_config", {}), "effort": self.effort}
        return found

    @property
    def answers(self) -> Output | None:
        """What its answer has to be; None for a text."""
        return None if self.output is None else Output.of(self.output)

    @property
    def user_memory(self) -> UserMemory | None:
        """What its jobs have of their user's memory."""
        return UserMemory() if self.memory is True else self.memory or None

    def targets(self, role: Role) -> list[Target]:
        """Whom to ask in a role, in order."""
        return [Target.parse(name) for name in dict.fromkeys([self.models.get(role, self.model), *self.fallbacks])]

    def definition(self) -> Json:
        """All that defines the agent, as plain JSON data.

        Fields that came later are left out where they have their default: the versions of before stay the same.
        """
        later: Json = {"models": self.models} if self.models else {}
        later |= {"cache_ttl": self.cache_ttl} if self.cache_ttl != "5m" else {}
        later |= {
            name: getattr(self, name)
            for name in ("fallbacks", "effort", "agents", "server_tools")
            if getattr(self, name)
        }
        hooks = {"before_tool": self.before_tool, "after_tool": self.after_tool}
        later |= {name: _name_of(hook) for name, hook in hooks.items() if hook is not None}
        later |= {"thinking": self.thinking} if self.thinking is not None else {}
        later |= {"output": self.answers.schema} if self.answers is not None else {}
        later |= {"pattern": self.pattern.definition()} if self.pattern != ReAct() else {}
        later |= {"context_window": self.context_window} if self.context_window != WINDOW else {}
        later |= {"mcp": [server.to_json() for server in self.mcp]} if self.mcp else {}
        later |= {"memory": asdict(self.user_memory)} if self.user_memory is not None else {}
        later |= {"approvals": definition_of(self.approvals)} if self.approvals else {}
        later |= {"guardrails": [check.definition() for check in self.guardrails]} if self.guardrails else {}
        return {
            "name": self.name,
            "description": self.description,
            "instructions": self.instructions,
            "model": self.model,
            "max_tokens": self.max_tokens,
            "budget": self.budget.to_json(),
            "pool": self.pool,
            "auto_approve": sorted(self.auto_approve),
            "parallel_tools": self.parallel_tools,
            "max_result_chars": self.max_result_chars,
            "extra": self.extra,
            "tools": [t.definition() for t in sorted([*self.tools, *self._delegation()], key=lambda t: t.name)],
            **later,
        }

    @property
    def version(self) -> str:
        """The first 12 hexadecimal digits of the SHA-256 of the definition as canonical JSON."""
        canonical = json.dumps(self.definition(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _is_name(value: object) -> bool:
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _is_count(value: object) -> bool:
    return isinstance(value, int) and _is_number(value)


def _are_servers(servers: object, tools: list[Tool]) -> bool:
    if not isinstance(servers, list | tuple) or not all(isinstance(server, McpServer) for server in servers):
        return False
    names = {server.name for server in servers}
    clash = any(t.pin is None and SEPARATOR in t.name and t.name.partition(SEPARATOR)[0] in names for t in tools)
    return len(names) == len(servers) and not clash


def _name_of(hook: object) -> str:
    return f"{getattr(hook, '__module__', '')}.{getattr(hook, '__qualname__', type(hook).__qualname__)}"


def _is_target(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(Target.parse(value))
    except ValueError:
        return False


def _fits(output: object) -> bool:
    if output is None or (isinstance(output, type) and issubclass(output, pydantic.BaseModel)):
        return True
    try:
        check_schema(output)
    except ValueError:
        return False
    return True


def _thinking(wanted: bool | int) -> Json:
    if isinstance(wanted, bool):
        return {"type": "adaptive" if wanted else "disabled"}
    return {"type": "enabled", "budget_tokens": wanted}


def _is_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return isinstance(value, dict)


def _sound(budget: Budget) -> bool:
    counts = all(limit is None or _is_count(limit) for limit in (budget.tokens, budget.steps))
    return (
        counts
        and (budget.usd is None or is_amount(budget.usd))
        and (budget.seconds is None or _is_number(budget.seconds))
    )
