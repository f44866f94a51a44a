"""The definition of an MCP server, and of an agent that names some."""

from __future__ import annotations

import json

import pytest

from agent_core import Agent, tool
from agent_core.errors import DefinitionError
from agent_core.mcp import FromEnv, McpServer, from_env

FILES = McpServer(name="files", command=["server", "/srv"], env={"TOKEN": from_env("FILES_TOKEN")}, tools=["read"])
CRM = McpServer(
    name="crm", url="https://crm.example/mcp", headers={"Authorization": from_env("CRM_TOKEN", "Bearer ")}, timeout=5
)


def agent(**fields):
    return Agent(**{"name": "a", "instructions": "Do it.", "model": "claude-sonnet-5-5", **fields})


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"command": ["x"], "name": "a__b"}, "name"),
        ({"command": ["x"], "name": ""}, "name"),
        ({}, "command"),
        ({"command": ["x"], "url": "https://x.example"}, "command"),
        ({"command": []}, "command"),
        ({"command": "server --now"}, "command"),
        ({"url": "crm.example"}, "url"),
        ({"url": "https://user:secret@crm.example"}, "url"),
        ({"url": "https://x.example", "headers": {"Authorization": "Bearer secret"}}, "headers"),
        ({"url": "https://x.example", "headers": {"A": FromEnv("NOT A NAME")}}, "headers"),
        ({"command": ["x"], "headers": {"A": from_env("B")}}, "headers"),
        ({"url": "https://x.example", "env": {"A": from_env("B")}}, "env"),
        ({"command": ["x"], "tools": "read"}, "tools"),
        ({"command": ["x"], "effects": {"read": "reads"}}, "effects"),
        ({"command": ["x"], "timeout": 0}, "timeout"),
        ({"command": ["x"], "timeout": True}, "timeout"),
    ],
)
def test_a_wrong_field_is_refused_at_once(fields, wrong):
    with pytest.raises(DefinitionError, match=f": {wrong} is .*; expected "):
        McpServer(**{"name": "x", **fields})


@pytest.mark.parametrize("server", [FILES, CRM])
def test_a_definition_makes_the_same_server(server):
    assert McpServer.from_json(json.loads(json.dumps(server.to_json()))) == server


@pytest.mark.parametrize(
    ("annotations", "effect"),
    [
        ({}, "write"),
        ({"readOnlyHint": True}, "read"),
        ({"readOnlyHint": True, "destructiveHint": True}, "read"),
        ({"destructiveHint": True}, "destructive"),
        ({"readOnlyHint": "yes"}, "write"),
    ],
)
def test_effects_follow_the_annotations_unless_the_agent_says_otherwise(annotations, effect):
    assert CRM.effect("close", annotations) == effect
    assert McpServer(name="x", command=["x"], effects={"close": "destructive"}).effect("close", annotations) == (
        "destructive"
    )


def test_names_that_a_model_can_call():
    assert CRM.exposed("tickets.close/all") == "crm__tickets_close_all"
    assert len(CRM.exposed("x" * 500)) == 128


def test_servers_are_part_of_the_version_and_agents_without_any_keep_theirs():
    assert agent(mcp=[CRM]).version != agent(mcp=[FILES]).version
    assert agent(mcp=[]).definition() == agent().definition()
    assert "mcp" not in agent().definition()


def test_a_tool_of_a_server_may_be_approved_before_it_is_known():
    assert agent(mcp=[CRM], auto_approve=["crm__close"]).auto_approve == ["crm__close"]
    with pytest.raises(DefinitionError, match="auto_approve"):
        agent(mcp=[CRM], auto_approve=["files__close"])


def test_names_do_not_clash():
    @tool(name="crm__close")
    def close() -> str:
        """Closes."""
        return ""

    for fields in ({"mcp": [CRM], "tools": [close]}, {"mcp": [CRM, CRM]}, {"mcp": ["crm"]}):
        with pytest.raises(DefinitionError, match="mcp is "):
            agent(**fields)
