"""Tools: plain functions with an effect class, and the registry that runs a model's calls of them.

The schema comes from the signature and the docstring by the SDK's own decorator, which also validates the arguments.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Protocol, cast, get_args, get_origin, get_type_hints, overload

import pydantic
from anthropic import beta_async_tool
from pydantic_core import to_jsonable_python

from agent_core.errors import DefinitionError, ToolError
from agent_core.failpoints import failpoint
from agent_core.reconcile import DidNotHappen, Happened, objection
from agent_core.results import A_RESULT_LIMIT, READER, RESULT_CHARS, fitted, is_result_limit
from agent_core.types import Effect, Json, is_amount, micros

EFFECTS = get_args(Effect)
NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
ToolFunction = Callable[..., Any]
log = logging.getLogger(__name__)


class ArtifactStore(Protocol):
    """Where a tool's files go."""

    async def save(self, job_id: str, name: str, data: bytes) -> Json: ...

    async def load(self, job_id: str, name: str) -> bytes:
        """An artifact's content. Raises FileNotFoundError when the job has none of that name."""
        ...


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a running tool may know of its job.

    `call_id` is the call's idempotency key: the same on every attempt at the call, in every process.
    """

    job_id: str
    call_id: str
    directory: Path
    artifacts: ArtifactStore | None = None

    @property
    def workspace(self) -> Path:
        """A directory of the job's own that holds its input files; it is made when it is first asked for."""
        self.directory.mkdir(parents=True, exist_ok=True)
        return self.directory

    @property
    def keeps_artifacts(self) -> bool:
        return self.artifacts is not None

    async def save_artifact(self, name: str, data: bytes) -> Json:
        """Keeps a file with the job; returns its id, name and size. Raises ToolError when there is no place for it."""
        return await self._place().save(self.job_id, name, data)

    async def load_artifact(self, name: str) -> bytes:
        """The content of an artifact of this job. Raises FileNotFoundError; ToolError when none can be kept."""
        return await self._place().load(self.job_id, name)

    def _place(self) -> ArtifactStore:
        if self.artifacts is None:
            raise ToolError("this run has no place to keep artifacts", code="no_artifact_store")
        return self.artifacts


_context: contextvars.ContextVar[ToolContext] = contextvars.ContextVar("tool_context")


def tool_context() -> ToolContext:
    """The context of the tool call that is running. Raises LookupError outside a tool call."""
    return _context.get()


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
    name: str | None = None,
) -> Tool | Callable[[ToolFunction], Tool]:
    """Makes a function, async or not, a tool.

    `effect` is `read` (may be run again at any time), `write` (at most once) or `destructive` (asks a person first).
    `timeout` is in seconds. `idempotent=True` declares that the function honours `tool_context().call_id` as an
    idempotency key, so that an interrupted call may be sent again with the same key. `reconcile`, async or not, is
    asked what became of an interrupted call, with its arguments and under its `tool_context()`: it returns
    `Happened(result)` or `DidNotHappen()`; with None or an exception, a person is asked. A result of more than
    `max_result_chars` characters (None: the agent's) is kept as an artifact, and the model sees a preview. `price_usd`
    is what each call costs, as a decimal string: it is reserved before the call and stands in the ledger. A function
    that is not async runs in a thread, which a timeout or a cancellation leaves running. A parameter is described by a
    text in its `Annotated` or by the docstring's Args. Raises DefinitionError when the function cannot be a tool.
    """

    def decorate(fn: ToolFunction) -> Tool:
        label = str(name or getattr(fn, "__name__", "?"))
        if not NAME.fullmatch(label):
            raise DefinitionError(f"tool {label}: name is {label!r}; accepted are 1 to 128 letters, digits, _ and -")
        if effect not in EFFECTS:
            raise DefinitionError(f"tool {label}: effect is {effect!r}; accepted are {', '.join(EFFECTS)}")
        _check_limits(label, timeout, max_result_chars, price_usd)
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


class _Failure(Exception):
    """Carries what a tool raised past the SDK, which takes any ValidationError for one of the arguments."""


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as exc:  # a tool that exits must not take the process with it
        raise _Failure from exc


def _prepare(fn: ToolFunction, stand_in: ToolFunction | None = None) -> Callable[..., Any]:
    """The function as the SDK's decorator wants it: a coroutine function whose parameters are described.

    `stand_in` is called in its place, with its arguments.
    """
    called = stand_in or fn

    def in_thread(*args: Any, **kwargs: Any) -> Any:
        with _failures():
            return called(*args, **kwargs)

    @functools.wraps(fn)
    async def call(*args: Any, **kwargs: Any) -> Any:
        if not inspect.iscoroutinefunction(called):
            return await asyncio.to_thread(in_thread, *args, **kwargs)
        with _failures():
            return await called(*args, **kwargs)

    call.__annotations__ = {name: _describe(hint) for name, hint in get_type_hints(fn, include_extras=True).items()}
    return call


def _describe(hint: Any) -> Any:
    """An annotation whose plain texts are its description."""
    if get_origin(hint) is not Annotated:
        return hint
    kind, *notes = get_args(hint)
    fields = [pydantic.Field(description=note) if isinstance(note, str) else note for note in notes]
    return Annotated[(kind, *fields)]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What the model gets to see of a call. `outcome` is `ok` or a stable error code, for metrics."""

    content: str
    is_error: bool = False
    outcome: str = "ok"


class Registry:
    """The tools of one agent, by name."""

    def __init__(self, tools: Iterable[Tool] = (), max_result_chars: int = RESULT_CHARS) -> None:
        self._tools = {t.name: t for t in tools}
        self._max_result_chars = max_result_chars

    def get(self, name: str) -> Tool | None:
        return self._tools.get(name)

    def effect(self, name: str) -> Effect:
        """The effect class of a call; a call of an unknown tool only reads, for it only gets an error back."""
        found = self._tools.get(name)
        return found.effect if found else "read"

    def price(self, name: str) -> int:
        """What a call of the tool itself costs, in micro-dollars."""
        found = self._tools.get(name)
        return micros(found.price_usd) if found and found.price_usd else 0

    def repeatable(self, name: str) -> bool:
        """Whether a call of which nobody knows if it happened may simply be sent again."""
        found = self._tools.get(name)
        return found is not None and (found.effect == "read" or found.idempotent)

    def reconcilable(self, name: str) -> bool:
        """Whether a tool can be asked what became of a call."""
        found = self._tools.get(name)
        return found is not None and found.reconcile is not None

    def to_json(self) -> list[Json]:
        """The tools as the Messages API takes them, sorted so that the prompt's prefix stays the same."""
        return [self._tools[name].to_json() for name in sorted(self._tools)]

    async def call(self, name: str, input: Json, context: ToolContext) -> ToolResult:
        """Runs one call. A failure of the tool is a result too: only cancellation leaves as an exception, and
        StaleAttemptError when a long result may no longer be kept.
        """
        found = self._tools.get(name)
        if found is None:
            known = ", ".join(sorted(self._tools)) or "none"
            return failure("unknown_tool", f"there is no tool named {name!r}; the tools are: {known}")
        return await self._fitted(name, await self._call(found, input, context), context)

    async def _call(self, found: Tool, input: Json, context: ToolContext) -> ToolResult:
        token = _context.set(context)
        try:
            async with asyncio.timeout(found.timeout):
                failpoint("before_tool")
                return success(await found.validated(input))
        except TimeoutError:
            return _late(found)
        except Exception as exc:
            return _explain(exc, found)
        finally:
            _context.reset(token)

    async def reconcile(self, name: str, input: Json, context: ToolContext) -> ToolResult | DidNotHappen | None:
        """Asks a reconcilable tool what became of a call: its result, that it did not happen, or None for unknown.

        Raises StaleAttemptError as `call` does.
        """
        answer = await self._ask(self._tools[name], input, context)
        return await self._fitted(name, answer, context) if isinstance(answer, ToolResult) else answer

    async def as_told(self, name: str, value: Any, context: ToolContext) -> ToolResult:
        """The result of a call of which someone says what it returned. Raises StaleAttemptError as `call` does."""
        return await self._fitted(name, success(value), context)

    async def _ask(self, found: Tool, input: Json, context: ToolContext) -> ToolResult | DidNotHappen | None:
        assert found.reconcile is not None
        token = _context.set(context)
        try:
            async with asyncio.timeout(found.timeout):
                answer = await found.reconcile(input)
            if isinstance(answer, Happened):
                return success(answer.result)
        except Exception:
            log.warning("tool %s could not say what became of call %s", found.name, context.call_id, exc_info=True)
            return None
        finally:
            _context.reset(token)
        return answer if isinstance(answer, DidNotHappen) else None

    async def _fitted(self, name: str, result: ToolResult, context: ToolContext) -> ToolResult:
        found = self._tools.get(name)
        limit = (found and found.max_result_chars) or self._max_result_chars
        text = await fitted(result.content, name, limit, context, readable=READER in self._tools)
        return replace(result, content=text)


def failure(code: str, message: str, retryable: bool = False) -> ToolResult:
    """An error result, in the one shape in which the model sees errors."""
    body = {"error": {"code": code, "message": message, "retryable": retryable}}
    return ToolResult(json.dumps(body, ensure_ascii=False), is_error=True, outcome=code)


def success(value: Any) -> ToolResult:
    """The result of a call that returned `value`: a text as it is, anything else as JSON."""
    text = value if isinstance(value, str) else json.dumps(to_jsonable_python(value), ensure_ascii=False)
    text = text.encode("utf-8", "replace").decode()  # lone surrogates cannot be recorded, nor sent to the model
    return ToolResult(text)


def _late(found: Tool) -> ToolResult:
    message = f"the tool did not finish within {found.timeout:g} seconds"
    if found.effect == "read":
        return failure("timeout", message, retryable=True)
    return failure("timeout", f"{message}; it may have had its effect all the same")


def _explain(exc: Exception, found: Tool) -> ToolResult:
    cause = exc.__cause__
    if isinstance(cause, ToolError):
        return failure(cause.code, str(cause), cause.retryable)
    if isinstance(cause, pydantic.ValidationError) and not isinstance(exc, _Failure):
        faults = cause.errors(include_url=False, include_context=False, include_input=False)
        detail = "; ".join(f"{'.'.join(map(str, f['loc'])) or 'arguments'}: {f['msg']}" for f in faults)
        return failure("invalid_arguments", f"the arguments do not fit the tool's schema: {detail}")
    # The text of an unexpected exception can hold a secret, so the model gets its class alone.
    fault = cause if isinstance(exc, _Failure) and cause is not None else exc
    log.warning("tool %s failed", found.name, exc_info=fault)
    return failure("tool_failed", f"the tool failed with {type(fault).__name__}")
