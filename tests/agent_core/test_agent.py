"""An agent's definition: what is refused, and what its version is made of."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from agent_core import Agent, Budget, DefinitionError, Tool, tool
from agent_core.agent import PRICED, SET_BY_THE_LOOP
from agent_core.guardrails import Allow, output_check
from agent_core.mcp import McpServer
from agent_core.memory import UserMemory
from agent_core.patterns import Chain
from agent_core.types import Json, Role


def make_tool(name: str, effect: Any = "read") -> Tool:
    def function(text: str) -> str:
        """Does something with a text."""
        return text

    return tool(effect=effect, name=name)(function)


LOOK, CHANGE = make_tool("look"), make_tool("change", "write")


def make(**changes: Any) -> Agent:
    return Agent(
        **{"name": "support", "instructions": "Help.", "model": "claude-sonnet-5-5", "tools": [LOOK, CHANGE], **changes}
    )


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("name", "", "1 to 64 letters, digits, _ and -, a letter first"),
        ("name", "two words", "1 to 64 letters"),
        ("name", "9lives", "1 to 64 letters"),
        ("name", "a" * 65, "1 to 64 letters"),
        ("name", "nl\n", "1 to 64 letters"),
        ("name", None, "1 to 64 letters"),
        ("instructions", "  ", "a text"),
        ("instructions", 5, "a text"),
        ("model", "", "the id of a model"),
        ("model", None, "the id of a model"),
        ("description", None, "a text, or an empty one"),
        ("max_tokens", 0, "a whole number above 0"),
        ("max_tokens", "many", "a whole number above 0"),
        ("max_tokens", True, "a whole number above 0"),
        ("pool", "no good", "1 to 64 letters"),
        ("parallel_tools", 0, "a whole number above 0"),
        ("parallel_tools", 1.5, "a whole number above 0"),
        ("tools", None, "a list of functions decorated with @tool"),
        ("tools", [len], "functions decorated with @tool"),
        ("tools", [LOOK, LOOK], "tools with different names"),
        ("auto_approve", ["erase"], "a list of names of its tools"),
        ("auto_approve", "look", "a list of names of its tools"),
        ("auto_approve", None, "a list of names of its tools"),
        ("extra", None, "a dictionary of plain JSON data"),
        ("extra", ["thinking"], "a dictionary of plain JSON data"),
        ("extra", {"thinking": {1, 2}}, "a dictionary of plain JSON data"),
        ("extra", {"x": math.nan}, "a dictionary of plain JSON data"),
        ("models", None, "ids of models, by any of the roles planner, validator, summariser"),
        ("models", {"planner": ""}, "ids of models, by any of the roles"),
        ("models", {"planner": 5}, "ids of models, by any of the roles"),
        ("models", {"executor": "claude-opus-5-5"}, "ids of models, by any of the roles"),
        ("models", {"critic": "claude-opus-5-5"}, "ids of models, by any of the roles"),
        ("cache_ttl", "1d", "5m or 1h"),
        ("cache_ttl", None, "5m or 1h"),
        ("cache_ttl", ["1h"], "5m or 1h"),
        ("budget", None, "a Budget with limits above 0"),
        ("budget", Budget(usd="lots"), "a Budget with limits above 0"),
        ("budget", Budget(usd="0"), "a Budget with limits above 0"),
        ("budget", Budget(usd="NaN"), "a Budget with limits above 0"),
        ("budget", Budget(usd="Infinity"), "a Budget with limits above 0"),
        ("budget", Budget(usd=0.1), "a Budget with limits above 0"),  # type: ignore[arg-type]
        ("budget", Budget(tokens=0), "a Budget with limits above 0"),
        ("budget", Budget(steps=2.5), "a Budget with limits above 0"),  # type: ignore[arg-type]
        ("budget", Budget(seconds=-1), "a Budget with limits above 0"),
        ("budget", Budget(seconds="60"), "a Budget with limits above 0"),  # type: ignore[arg-type]
        ("memory", None, "True, False or a UserMemory"),
        ("memory", 8, "True, False or a UserMemory"),
    ],
)
def test_a_wrong_field_is_named_with_what_it_holds_and_what_is_expected(field: str, value: Any, expected: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        make(**{field: value})
    message = str(caught.value)
    held = value[0] if value == [len] else ["look", "look"] if value == [LOOK, LOOK] else value
    assert message.startswith(
        f"agent {value if field == 'name' else 'support'!r}: {field} is {held!r}; expected {expected}"
    )


@pytest.mark.parametrize("key", sorted(SET_BY_THE_LOOP | PRICED))
def test_extra_cannot_set_what_the_loop_sets_or_what_changes_the_price(key: str) -> None:
    with pytest.raises(DefinitionError, match=f"expected none of {key}: the loop sets them, or they change the price"):
        make(extra={key: 1, "thinking": {"type": "adaptive"}})


def test_limits_may_be_left_away() -> None:
    assert make(budget=Budget(None, None, None, None)).budget.micros is None


def test_the_definition_is_all_of_it_as_plain_json() -> None:
    definition = make(auto_approve=["look", "change"], extra={"thinking": {"type": "adaptive"}}).definition()
    assert json.loads(json.dumps(definition)) == definition
    assert definition["auto_approve"] == ["change", "look"]
    assert [t["name"] for t in definition["tools"]] == ["change", "look"]
    assert definition["budget"] == Budget().to_json()
    assert definition.keys() == set(Agent.__dataclass_fields__) - LATER


def test_what_came_later_is_in_the_definition_only_where_it_is_used() -> None:
    """A field that every definition had would give each agent a new version on an upgrade, without a change to it."""
    routed = make(models={"validator": "claude-haiku-5-5"}, cache_ttl="1h").definition()
    assert (routed["models"], routed["cache_ttl"]) == ({"validator": "claude-haiku-5-5"}, "1h")
    assert make(models={}, cache_ttl="5m").definition() == make().definition()


def test_each_role_has_its_model_or_the_agents() -> None:
    agent = make(models={"planner": "claude-opus-5-5", "summariser": "claude-haiku-5-5"})
    roles: list[Role] = ["planner", "executor", "validator", "summariser"]
    assert [agent.targets(role)[0].model for role in roles] == [
        "claude-opus-5-5",
        "claude-sonnet-5-5",
        "claude-sonnet-5-5",
        "claude-haiku-5-5",
    ]
    assert agent.version == make(models={"summariser": "claude-haiku-5-5", "planner": "claude-opus-5-5"}).version


def test_the_requests_ask_for_a_cache_of_an_hour_where_the_agent_does() -> None:
    extra = {"thinking": {"type": "adaptive"}}
    assert make(extra=extra).parameters == extra
    assert make(extra=extra, cache_ttl="1h").parameters == {
        **extra,
        "cache_control": {"type": "ephemeral", "ttl": "1h"},
    }
    assert make(extra=extra, cache_ttl="1h").extra == extra


def test_the_version_does_not_depend_on_the_order_of_tools() -> None:
    version = make().version
    assert len(version) == 12
    assert int(version, 16) >= 0
    assert make(tools=[CHANGE, LOOK]).version == version
    assert make(auto_approve=["look", "change"]).version == make(auto_approve=["change", "look"]).version


CHANGES: Json = {
    "name": "other",
    "instructions": "Help more.",
    "model": "claude-opus-5-5",
    "tools": [LOOK],
    "description": "helps",
    "max_tokens": 100,
    "budget": Budget(steps=3),
    "pool": "gpu",
    "auto_approve": ["look"],
    "parallel_tools": 1,
    "max_result_chars": 5_000,
    "extra": {"thinking": {"type": "adaptive"}},
    "models": {"planner": "claude-opus-5-5"},
    "cache_ttl": "1h",
    "approvals": {"change": "always"},
    "guardrails": [output_check(lambda text, given: Allow())],
    "fallbacks": ["claude-haiku-5-5", "local-model@second"],
    "thinking": True,
    "effort": "low",
    "output": {"type": "object"},
    "pattern": Chain(["think", "answer"]),
    "agents": ["researcher"],
    "context_window": 40_000,
    "server_tools": ["web_search"],
    "before_tool": print,
    "after_tool": repr,
    "mcp": [McpServer(name="files", command=["files-server"])],
    "memory": True,
}
LATER = {
    "after_tool",
    "before_tool",
    "server_tools",
    "agents",
    "approvals",
    "cache_ttl",
    "context_window",
    "effort",
    "fallbacks",
    "guardrails",
    "mcp",
    "memory",
    "models",
    "output",
    "pattern",
    "thinking",
}


def test_every_field_is_part_of_the_version() -> None:
    assert CHANGES.keys() == set(Agent.__dataclass_fields__)
    versions = {field: make(**{field: value}).version for field, value in CHANGES.items()}
    assert len({make().version, *versions.values()}) == 1 + len(CHANGES)


@pytest.mark.parametrize(
    "change",
    [
        {"effect": "write"},
        {"timeout": 1.0},
        {"idempotent": True},
        {"max_result_chars": 1000},
        {"description": "Other."},
        {"final": True},
    ],
)
def test_every_property_of_a_tool_is_part_of_the_version(change: Json) -> None:
    assert make(tools=[replace(LOOK, **change)]).version != make(tools=[LOOK]).version


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"k": 0}, "k is 0; expected a whole number from 1 to 100"),
        ({"k": 101}, "k is 101"),
        ({"tokens": True}, "tokens is True"),
        ({"tokens": "many"}, "tokens is 'many'"),
        ({"shared": None}, "shared is None; expected True or False"),
        ({"learns": 1}, "learns is 1"),
    ],
)
def test_a_wrong_field_of_its_memory_is_named(fields: Json, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        UserMemory(**fields)


def test_memory_is_that_of_the_user_by_default_or_as_it_is_told() -> None:
    assert (make().user_memory, make(memory=False).version) == (None, make().version)
    assert make(memory=True).user_memory == UserMemory(k=8, tokens=1_000, shared=True, learns=True)
    assert make(memory=True).version == make(memory=UserMemory()).version != make(memory=UserMemory(k=9)).version


def test_the_registry_has_its_tools() -> None:
    assert make().registry.get("look") is LOOK
