"""Tools: plain functions with an effect class. `agent_core.registry` runs a model's calls of them.

The schema comes from the signature and the docstring by the SDK's own decorator, which also validates the arguments.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints, overload

import pydantic
from anthropic import beta_async_tool

from agent_core.context import ArtifactStore, ToolContext, tool_context
from agent_core.errors import DefinitionError
from agent_core.reconcile import objection
from agent_core.registry import Registry, ToolCall, ToolResult, called, failure, success
from agent_core.results import A_RESULT_LIMIT, is_result_limit
from agent_core.types import Effect, Json, is_amount

__all__ = [
    "ArtifactStore",
    "Registry",
    "Tool",
    "ToolCall",
    "ToolContext",
    "ToolResult",
    "failure",
    "success",
    "tool",
    "tool_context",
]

EFFECTS = get_args(Effect)
NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
MOST_RETRIES = 10
ToolFunction = Callable[..., Any]


@dataclass(frozen=True)
class Tool:
    """A function that a model may call. Made by the `tool` decorator; calling it calls the function.

    `reconcilable` is part of the definition; `reconcile` asks this process's function, if it has one.
    """

    name: str
    description: str
    input_schema: Json
    effect: Effect
    timeout: float
    idempotent: bool
    function: ToolFunction = field(repr=False)
    validated: Callable[[Json], Awaitable[Any]] = field(repr=False, compare=False)
    reconcilable: bool = False
    reconcile: Callable[[Json], Awaitable[Any]] | None = field(default=None, repr=False, compare=False)
    max_result_chars: int | None = None
    price_usd: str | None = None
    retries: int = 0
    final: bool = False
    """The result of a call that succeeds is the run's answer."""
    pin: str | None = None
    """Of an MCP server's tool: the fingerprint of what the server said of it."""

    @property
    def repeatable(self) -> bool:
        """Whether a call of which nobody knows if it happened may simply be sent again."""
        return self.effect == "read" or self.idempotent

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def to_json(self) -> Json:
        """The tool as the Messages API takes it."""
        return {"name": self.name, "description": self.description, "input_schema": self.input_schema}

    def definition(self) -> Json:
        """The tool as an agent's published definition has it: the schema and how the platform treats the call."""
        found = {**self.to_json(), "effect": self.effect, "timeout": self.timeout, "idempotent": self.idempotent}
        special = {
            "reconcilable": self.reconcilable or None,
            "max_result_chars": self.max_result_chars,
            "price_usd": self.price_usd,
            "retries": self.retries or None,
            "final": self.final or None,
            "pin": self.pin,
        }
        return {**found, **{k: v for k, v in special.items() if v is not None}}  # others keep their hash


@overload
def tool(function: ToolFunction, /) -> Tool: ...


@overload
def tool(
    *,
    effect: Effect = ...,
    timeout: float = ...,
    idempotent: bool = ...,
    reconcile: ToolFunction | None = ...,
    max_result_chars: int | None = ...,
    price_usd: str | None = ...,
    retries: int = ...,
    final: bool = ...,
    name: str | None = ...,
) -> Callable[[ToolFunction], Tool]: ...


def tool(
    function: ToolFunction | None = None,
    /,
    *,
    effect: Effect = "write",
    timeout: float = 150.0,
    idempotent: bool = False,
    reconcile: ToolFunction | None = None,
    max_result_chars: int | None = None,
    price_usd: str | None = None,
    retries: int = 0,
    final: bool = False,
    name: str | None = None,
) -> Tool | Callable[[ToolFunction], Tool]:
    """Makes a function, async or not, a tool.

    `effect` is `read` (may be run again at any time), `write` (at most once) or `destructive` (asks a person first).
    `timeout` is in seconds. `idempotent=True` declares that the function honours `tool_context().call_id` as an
    idempotency key, so that an interrupted call may be sent again with the same key. `reconcile`, async or not, is
    asked what became of an interrupted call, with its arguments and under its `tool_context()`: it returns
    `Happened(result)` or `DidNotHappen()`; with None or an exception, a person is asked. A result of more than
    `max_result_chars` characters (None: the agent's) is kept as an artifact, and the model sees a preview. `price_usd`
    is what each call costs, as a decimal string: it is reserved before the call and stands in the ledger. `retries`
    is how often a call is tried again, after growing and jittered waits, when it failed with a retryable ToolError or
    its `timeout`, which is that of one try; it is for tools that read or are idempotent. With `final`, the result of a
    call that succeeds is the run's answer, and the model is not asked again. A function that is not async runs in a
    thread, which a timeout or a cancellation leaves running. A parameter is described by a text in its `Annotated` or
    by the docstring's Args. Raises DefinitionError when the function cannot be a tool.
    """

    def decorate(fn: ToolFunction) -> Tool:
        label = str(name or getattr(fn, "__name__", "?"))
        if not NAME.fullmatch(label):
            raise DefinitionError(f"tool {label}: name is {label!r}; accepted are 1 to 128 letters, digits, _ and -")
        if effect not in EFFECTS:
            raise DefinitionError(f"tool {label}: effect is {effect!r}; accepted are {', '.join(EFFECTS)}")
        _check_limits(label, timeout, max_result_chars, price_usd)
        _check_retries(label, retries, repeatable=effect == "read" or idempotent, priced=price_usd is not None)
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise DefinitionError(f"tool {label}: it is a generator; a tool returns its result in one piece")
        if reconcile is not None and (wrong := objection(reconcile, fn, effect, idempotent)):
            raise DefinitionError(f"tool {label}: {wrong}")
        try:
            sdk = beta_async_tool(_prepare(fn), name=label)
        except Exception as exc:
            raise DefinitionError(f"tool {label}: its signature gives no JSON schema: {exc}") from exc
        if sdk.input_schema.get("type") != "object":
            raise DefinitionError(f"tool {label}: its signature has parameters without a name; a model calls by name")
        if not sdk.description:
            raise DefinitionError(f"tool {label}: it has no docstring; say in one what it does and when to use it")
        return Tool(
            name=label,
            description=sdk.description,
            input_schema=cast(Json, sdk.input_schema),
            effect=effect,
            timeout=timeout,
            idempotent=idempotent,
            max_result_chars=max_result_chars,
            price_usd=price_usd,
            retries=retries,
            final=final,
            function=fn,
            validated=sdk.call,
            reconcilable=reconcile is not None,
            reconcile=beta_async_tool(_prepare(fn, reconcile), name=label).call if reconcile is not None else None,
        )

    return decorate(function) if function is not None else decorate


def _check_limits(label: str, timeout: float, max_result_chars: int | None, price_usd: str | None) -> None:
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise DefinitionError(f"tool {label}: timeout is {timeout!r}; it must be a number of seconds above 0")
    if max_result_chars is not None and not is_result_limit(max_result_chars):
        raise DefinitionError(f"tool {label}: max_result_chars is {max_result_chars!r}; expected {A_RESULT_LIMIT}")
    if price_usd is not None and not is_amount(price_usd):
        raise DefinitionError(
            f'tool {label}: price_usd is {price_usd!r}; expected a decimal string above 0, like "0.01"'
        )


def _check_retries(label: str, retries: int, *, repeatable: bool, priced: bool) -> None:
    if isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries <= MOST_RETRIES:
        raise DefinitionError(f"tool {label}: retries is {retries!r}; expected a whole number from 0 to {MOST_RETRIES}")
    if retries and not repeatable:
        raise DefinitionError(f"tool {label}: retries is for tools that read or are idempotent; any other runs once")
    if retries and priced:
        raise DefinitionError(f"tool {label}: retries does not go with price_usd, which is reserved for one try")


def _prepare(fn: ToolFunction, stand_in: ToolFunction | None = None) -> Callable[..., Any]:
    """The function as the SDK's decorator wants it: a coroutine function whose parameters are described.

    `stand_in` is called in its place, with its arguments.
    """
    run = stand_in or fn

    @functools.wraps(fn)
    async def call(*args: Any, **kwargs: Any) -> Any:
        return await called(run, *args, **kwargs)

    call.__annotations__ = {name: _describe(hint) for name, hint in get_type_hints(fn, include_extras=True).items()}
    return call


def _describe(hint: Any) -> Any:
    """An annotation whose plain texts are its description."""
    if get_origin(hint) is not Annotated:
        return hint
    kind, *notes = get_args(hint)
    fields = [pydantic.Field(description=note) if isinstance(note, str) else note for note in notes]
    return Annotated[(kind, *fields)]
