"""MCP servers that an agent names: plain data. The worker connects to them and makes their tools the agent's."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args
from urllib.parse import urlsplit

from agent_core.errors import DefinitionError
from agent_core.types import Effect, Json

NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,31}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
UNUSABLE = re.compile(r"[^a-zA-Z0-9_-]")
LONGEST_TOOL = 128
SEPARATOR = "__"
EFFECTS = get_args(Effect)
VALUES = "a dictionary of values from the environment, each from_env(...): the definition is published, secrets are not"


@dataclass(frozen=True, slots=True)
class FromEnv:
    """A value that only the worker knows: `prefix` and what the environment variable holds there."""

    variable: str
    prefix: str = ""

    def to_json(self) -> Json:
        return {"variable": self.variable, "prefix": self.prefix}


def from_env(variable: str, prefix: str = "") -> FromEnv:
    """What the worker's environment variable holds, behind `prefix`: `from_env("CRM_TOKEN", "Bearer ")`."""
    return FromEnv(variable, prefix)


@dataclass(frozen=True, kw_only=True)
class McpServer:
    """An MCP server, whose tool `t` the agent has as `name__t`. Raises DefinitionError at once when a field is wrong.

    It is started by a `command` and spoken to over its standard input and output, with the variables of `env` in its
    environment; or it is at a `url` (streamable HTTP), with `headers`. `tools` lists the tools that the agent may use,
    None for all. A tool's effect is what its annotations say (`write` when they say nothing) unless `effects` has it.
    `timeout` of a call is in seconds.
    """

    name: str
    command: list[str] | None = None
    url: str | None = None
    env: dict[str, FromEnv] = field(default_factory=dict)
    headers: dict[str, FromEnv] = field(default_factory=dict)
    tools: list[str] | None = None
    effects: dict[str, Effect] = field(default_factory=dict)
    timeout: float = 60.0

    def __post_init__(self) -> None:
        named = isinstance(self.name, str) and NAME.fullmatch(self.name) is not None
        self._check(named, "name", "1 to 32 letters, digits and -, a letter first")
        self._check((self.command is None) != (self.url is None), "command", "a command or a url, and not both")
        self._check(self.command is None or _is_command(self.command), "command", "a list: the program, its arguments")
        self._check(self.url is None or _is_web_address(self.url), "url", "a URL like https://host/mcp")
        self._check(_are_values(self.env) and not (self.env and self.url), "env", f"{VALUES}; for a command")
        self._check(
            _are_values(self.headers) and not (self.headers and self.command), "headers", f"{VALUES}; for a url"
        )
        self._check(self.tools is None or _are_texts(self.tools), "tools", "a list of names of the server's tools")
        rated = isinstance(self.effects, dict) and all(effect in EFFECTS for effect in self.effects.values())
        self._check(rated, "effects", f"any of {', '.join(EFFECTS)}, by names of the server's tools")
        counts = isinstance(self.timeout, int | float) and not isinstance(self.timeout, bool)
        self._check(counts and 0 < self.timeout < math.inf, "timeout", "a number of seconds above 0")

    def _check(self, ok: bool, field_name: str, accepted: str) -> None:
        if not ok:
            held = getattr(self, field_name)
            raise DefinitionError(f"MCP server {self.name!r}: {field_name} is {held!r}; expected {accepted}")

    @property
    def place(self) -> Json:
        """Where it is and how it is spoken to: all but what an agent makes of its tools."""
        whole = self.to_json()
        return {part: whole[part] for part in ("name", "command", "url", "env", "headers")}

    @property
    def variables(self) -> set[str]:
        """The environment variables that it takes values from."""
        return {value.variable for value in (*self.env.values(), *self.headers.values())}

    def exposed(self, tool: str) -> str:
        """The name under which the model knows one of its tools."""
        return f"{self.name}{SEPARATOR}{UNUSABLE.sub('_', tool)}"[:LONGEST_TOOL]

    def has(self, tool: str) -> bool:
        """Whether the agent may use one of its tools."""
        return self.tools is None or tool in self.tools

    def effect(self, tool: str, annotations: Mapping[str, Any]) -> Effect:
        """The effect class of one of its tools."""
        said: Effect = "read" if annotations.get("readOnlyHint") is True else "write"
        if annotations.get("destructiveHint") is True and said == "write":
            said = "destructive"
        return self.effects.get(tool, said)

    def to_json(self) -> Json:
        """As an agent's published definition has it."""
        return {
            "name": self.name,
            "command": self.command,
            "url": self.url,
            "env": {name: value.to_json() for name, value in self.env.items()},
            "headers": {name: value.to_json() for name, value in self.headers.items()},
            "tools": self.tools,
            "effects": self.effects,
            "timeout": self.timeout,
        }

    @classmethod
    def from_json(cls, data: Json) -> McpServer:
        """The server of a published definition. Raises TypeError, KeyError and DefinitionError for what is none."""
        values = {part: {name: FromEnv(**value) for name, value in data[part].items()} for part in ("env", "headers")}
        return cls(**{**data, **values})


def _are_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) and item for item in value)


def _is_command(value: object) -> bool:
    return _are_texts(value) and bool(value)


def _are_values(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(found, FromEnv) and VARIABLE.fullmatch(str(found.variable))
        for name, found in value.items()
    )


def _is_web_address(url: object) -> bool:
    try:
        parts = urlsplit(str(url))
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not parts.username
    except ValueError:
        return False
