"""Runs a model's calls of an agent's tools, with their hooks, retries and time limits. A failure is a result too."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import inspect
import json
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pydantic
from pydantic_core import to_jsonable_python

from agent_core.context import Pending, ToolContext, running
from agent_core.errors import StaleAttemptError, ToolError, Veto
from agent_core.failpoints import failpoint
from agent_core.reconcile import DidNotHappen, Happened
from agent_core.results import READER, RESULT_CHARS, fitted
from agent_core.types import Effect, Json, micros

if TYPE_CHECKING:
    from agent_core.tools import Tool

RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.5, 20.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool, as hooks see it."""

    name: str
    input: Json
    effect: Effect
    context: ToolContext


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What the model gets to see of a call. `outcome` is `ok` or a stable error code, for metrics; `retryable` says
    whether the same call may succeed later.
    """

    content: str
    is_error: bool = False
    outcome: str = "ok"
    pending: str | None = None
    """The job that the call is now, which has no result yet."""
    retryable: bool = False


Before = Callable[[ToolCall], Json | Awaitable[Json | None] | None]
"""Sees a call before it runs. Lets it run (None), gives it another input, or raises `Veto`."""
After = Callable[[ToolCall, ToolResult], ToolResult | str | Awaitable[ToolResult | str | None] | None]
"""Sees a result before anyone else does. Leaves it (None), or says what it is to be: a result, or its content."""


def jittered(attempt: int) -> float:
    """Seconds to wait after the given try of a call, the first being 1: exponential, with full jitter."""
    return random.uniform(0, min(LONGEST_RETRY_SECONDS, RETRY_SECONDS * 2 ** (attempt - 1)))  # noqa: S311


class Registry:
    """The tools of one agent, by name.

    `before` and `after` are hooks of every call, async or not; one that is not runs in a thread. When `before` fails,
    the call is not run; when `after` does, the result is withheld: nobody knows what it would have taken out.
    `pause` says how long to wait between two tries.
    """

    def __init__(
        self,
        tools: Iterable[Tool] = (),
        max_result_chars: int = RESULT_CHARS,
        *,
        before: Before | None = None,
        after: After | None = None,
        pause: Callable[[int], float] = jittered,
    ) -> None:
        self._tools = {t.name: t for t in tools}
        self._max_result_chars = max_result_chars
        self._before = before
        self._after = after
        self._pause = pause

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
        return found is not None and found.repeatable

    def final(self, name: str) -> bool:
        """Whether the result of a call that succeeds is the run's answer."""
        found = self._tools.get(name)
        return found is not None and found.final

    def reconcilable(self, name: str) -> bool:
        """Whether a tool can be asked what became of a call."""
        found = self._tools.get(name)
        return found is not None and found.reconcile is not None

    def to_json(self) -> list[Json]:
        """The tools as the Messages API takes them, sorted so that the prompt's prefix stays the same."""
        return [self._tools[name].to_json() for name in sorted(self._tools)]

    async def call(self, name: str, input: Json, context: ToolContext) -> ToolResult:
        """Runs one call. A failure of the tool or of a hook is a result too: only cancellation leaves as an exception,
        and StaleAttemptError when a long result may no longer be kept.
        """
        found = self._tools.get(name)
        if found is None:
            known = ", ".join(sorted(self._tools)) or "none"
            return failure("unknown_tool", f"there is no tool named {name!r}; the tools are: {known}")
        call = ToolCall(name, input, found.effect, context)
        try:
            call = await self._let_through(call)
        except Veto as veto:
            return failure("vetoed", str(veto))
        except ToolFault as fault:
            log.warning("the hook before tool %s failed", name, exc_info=fault.__cause__)
            return failure("hook_failed", "the check before this call failed, so the call was not run")
        return await self._shown(call, await self._run(found, call))

    async def reconcile(self, name: str, input: Json, context: ToolContext) -> ToolResult | DidNotHappen | None:
        """Asks a reconcilable tool what became of a call: its result, that it did not happen, or None for unknown.

        Raises StaleAttemptError as `call` does.
        """
        answer = await self._ask(self._tools[name], input, context)
        if not isinstance(answer, ToolResult):
            return answer
        return await self._shown(ToolCall(name, input, self.effect(name), context), answer)

    async def as_told(self, name: str, input: Json, value: Any, context: ToolContext) -> ToolResult:
        """The result of a call of which someone says what it returned. Raises StaleAttemptError as `call` does."""
        return await self._shown(ToolCall(name, input, self.effect(name), context), success(value))

    async def _let_through(self, call: ToolCall) -> ToolCall:
        """The call as the hook lets it run. Raises Veto; ToolFault when the hook fails."""
        if self._before is None:
            return call
        own = replace(call, input=copy.deepcopy(call.input))  # what is in the conversation stays as it is
        edited = await _asked(self._before, own)
        if edited is None:
            return call
        if not isinstance(edited, dict):
            raise ToolFault from TypeError(f"the hook returned {type(edited).__name__}; expected an input or None")
        return replace(call, input=edited)

    async def _run(self, found: Tool, call: ToolCall) -> ToolResult:
        """Runs the call, and again while its failures are passing ones and the tool has retries left."""
        attempt = 1
        while (result := await self._once(found, call)).retryable and attempt <= found.retries:
            log.info("tool %s failed with %s; it is tried again", found.name, result.outcome)
            await asyncio.sleep(self._pause(attempt))
            attempt += 1
        return result

    async def _once(self, found: Tool, call: ToolCall) -> ToolResult:
        token = running.set(call.context)
        try:
            async with asyncio.timeout(found.timeout):
                failpoint("before_tool")
                return success(await found.validated(call.input))
        except TimeoutError:
            return _late(found)
        except Exception as exc:
            return _explain(exc, found)
        finally:
            running.reset(token)

    async def _ask(self, found: Tool, input: Json, context: ToolContext) -> ToolResult | DidNotHappen | None:
        assert found.reconcile is not None
        token = running.set(context)
        try:
            async with asyncio.timeout(found.timeout):
                answer = await found.reconcile(input)
            if isinstance(answer, Happened):
                return success(answer.result)
        except Exception:
            log.warning("tool %s could not say what became of call %s", found.name, context.call_id, exc_info=True)
            return None
        finally:
            running.reset(token)
        return answer if isinstance(answer, DidNotHappen) else None

    async def _shown(self, call: ToolCall, result: ToolResult) -> ToolResult:
        """The result as the hook leaves it and as the conversation has room for it."""
        result = await self._checked(call, result)
        found = self._tools.get(call.name)
        limit = (found and found.max_result_chars) or self._max_result_chars
        content = call.context.redact(result.content)  # before any of it is kept, or cut in the middle of a secret
        text = await fitted(content, call.name, limit, call.context, readable=READER in self._tools)
        return replace(result, content=text)

    async def _checked(self, call: ToolCall, result: ToolResult) -> ToolResult:
        if self._after is None or result.pending is not None:
            return result
        try:
            changed = await _asked(self._after, call, result)
            if isinstance(changed, str):
                return replace(result, content=changed)
            if changed is not None and not isinstance(changed, ToolResult):
                raise ToolFault from TypeError(f"the hook returned {type(changed).__name__}; expected a result")
            return result if changed is None else changed
        except (ToolFault, Veto) as fault:
            log.warning("the hook after tool %s failed", call.name, exc_info=fault.__cause__ or fault)
            return failure(
                "hook_failed", "the call was run, but the check of its result failed; the result is withheld"
            )


class ToolFault(Exception):
    """Carries what a tool or a hook raised, told from what is raised around it: the SDK, say, takes any ValidationError
    for one of the arguments.
    """


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as exc:  # a tool that exits must not take the process with it
        raise ToolFault from exc


async def called(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a function returns, which runs in a thread unless it is async. Raises ToolFault from what it raises."""

    def in_thread() -> Any:
        with _faults():
            return function(*args, **kwargs)

    if not inspect.iscoroutinefunction(function):
        return await asyncio.to_thread(in_thread)
    with _faults():
        return await function(*args, **kwargs)


async def _asked(hook: Callable[..., Any], *args: Any) -> Any:
    """What a hook says. Raises Veto and StaleAttemptError as the hook does, ToolFault for anything else it raises."""
    try:
        return await called(hook, *args)
    except ToolFault as fault:
        if isinstance(fault.__cause__, Veto | StaleAttemptError):
            raise fault.__cause__ from None
        raise


def failure(code: str, message: str, retryable: bool = False) -> ToolResult:
    """An error result, in the one shape in which the model sees errors."""
    body = {"error": {"code": code, "message": message, "retryable": retryable}}
    text = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace").decode()
    return ToolResult(text, is_error=True, outcome=code, retryable=retryable)


def success(value: Any) -> ToolResult:
    """The result of a call that returned `value`: a text as it is, anything else as JSON."""
    if isinstance(value, Pending):
        return ToolResult("", pending=value.job_id)
    text = value if isinstance(value, str) else json.dumps(to_jsonable_python(value), ensure_ascii=False)
    text = text.encode("utf-8", "replace").decode()  # lone surrogates cannot be recorded, nor sent to the model
    return ToolResult(text)


def _late(found: Tool) -> ToolResult:
    message = f"the tool did not finish within {found.timeout:g} seconds"
    if found.repeatable:
        return failure("timeout", message, retryable=True)
    return failure("timeout", f"{message}; it may have had its effect all the same")


def _explain(exc: Exception, found: Tool) -> ToolResult:
    cause = exc.__cause__
    if isinstance(cause, ToolError):
        return failure(cause.code, str(cause), cause.retryable)
    if isinstance(cause, pydantic.ValidationError) and not isinstance(exc, ToolFault):
        faults = cause.errors(include_url=False, include_context=False, include_input=False)
        detail = "; ".join(f"{'.'.join(map(str, f['loc'])) or 'arguments'}: {f['msg']}" for f in faults)
        return failure("invalid_arguments", f"the arguments do not fit the tool's schema: {detail}")
    # The text of an unexpected exception can hold a secret, so the model gets its class alone.
    fault = cause if isinstance(exc, ToolFault) and cause is not None else exc
    log.warning("tool %s failed", found.name, exc_info=fault)
    return failure("tool_failed", f"the tool failed with {type(fault).__name__}")
