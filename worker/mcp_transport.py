"""The ways to an MCP server: a subprocess's standard input and output, and streamable HTTP. Neither reads more than
`MOST_BYTES` of one message, whatever the server sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import httpx2
import mcp_types
import structlog
from mcp.client.stdio import get_default_environment
from mcp.client.streamable_http import MCP_SESSION_ID, streamable_http_client
from mcp.shared.message import SessionMessage

from agent_core.mcp import FromEnv, McpServer

MOST_BYTES = 8 << 20
CONNECT_SECONDS = 10.0
LEAVE_SECONDS = 1.0
"""How long a subprocess has to end by itself once its standard input is closed."""
DRAIN_SECONDS = 2.0
FORGOTTEN = "the server has forgotten the session"
TOO_LARGE = "byte limit"
"""Stands in the message of an answer that was too large, be it the SDK's or ours."""
Ended = Callable[[str], None]
log = structlog.get_logger("worker")


def open_transport(
    server: McpServer, environment: Mapping[str, str], on_end: Ended
) -> AbstractAsyncContextManager[tuple[object, object]]:
    """The streams to a server. `on_end` hears why they end, or will: "", FORGOTTEN, or that a message was too large."""
    if server.command is not None:
        return _subprocess(server.command, _values(server.env, environment), on_end)
    assert server.url is not None
    return _http(server.url, _values(server.headers, environment), on_end)


def _values(declared: Mapping[str, FromEnv], environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value.prefix + environment[value.variable] for name, value in declared.items()}


# ---- standard input and output


@asynccontextmanager
async def _subprocess(
    command: list[str], environment: dict[str, str], on_end: Ended
) -> AsyncIterator[tuple[object, object]]:
    """The SDK's own reads a line of any length, and in quadratic time."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=PIPE,
        stdout=PIPE,
        env=get_default_environment() | environment,  # the worker's own has its secrets
        limit=MOST_BYTES,
        start_new_session=True,
    )
    arriving, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    sending, leaving = anyio.create_memory_object_stream[SessionMessage](0)

    async def read() -> None:
        async with arriving:
            on_end(await _read(process, arriving.send))

    async def write() -> None:
        assert process.stdin is not None
        with contextlib.suppress(ConnectionError, anyio.BrokenResourceError):
            async for message in leaving:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                process.stdin.write(text.encode() + b"\n")
                await process.stdin.drain()

    try:
        async with anyio.create_task_group() as tasks, received, sending, leaving:
            tasks.start_soon(read)
            tasks.start_soon(write)
            try:
                yield received, sending
            finally:
                tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)


async def _read(process: Process, deliver: Callable[[SessionMessage], object]) -> str:
    """Delivers the messages until there are no more; why."""
    assert process.stdout is not None
    while True:
        try:
            line = await process.stdout.readline()
        except ValueError:
            return f"a message exceeds the {MOST_BYTES} {TOO_LARGE}"
        if not line:
            return ""
        try:
            message = mcp_types.jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError:
            log.debug("an MCP server wrote a line that is no message", bytes=len(line))
            continue
        try:
            await deliver(SessionMessage(message))  # type: ignore[misc]
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return ""


async def _end(process: Process) -> None:
    """Lets the subprocess end, then ends it and all that it started."""
    assert process.stdin is not None
    process.stdin.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LEAVE_SECONDS):
            await process.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):  # what left the group may hold the pipe
        async with asyncio.timeout(DRAIN_SECONDS):
            await process.communicate()  # a pipe that is not read to its end is never closed


# ---- streamable HTTP


@asynccontextmanager
async def _http(url: str, headers: dict[str, str], on_end: Ended) -> AsyncIterator[tuple[object, object]]:
    async def look_at(response: httpx2.Response) -> None:
        if response.status_code == httpx2.codes.NOT_FOUND and MCP_SESSION_ID in response.request.headers:
            on_end(FORGOTTEN)
        _limit(response)

    async with (
        httpx2.AsyncClient(
            headers={**headers, "Accept-Encoding": "identity"},
            timeout=httpx2.Timeout(CONNECT_SECONDS, read=None),  # a call's own timeout bounds what it waits for
            event_hooks={"response": [look_at]},
        ) as client,
        streamable_http_client(url, http_client=client, max_sse_event_size=MOST_BYTES) as streams,
    ):
        yield streams


def _limit(response: httpx2.Response) -> None:
    """Bounds what is read of a response; of a stream of events the SDK bounds each."""
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Limited(response.stream, encoded="content-encoding" in response.headers)


class _Limited(httpx2.AsyncByteStream):
    """A body that breaks off above `MOST_BYTES`, and at once when it is compressed: a bomb would be small here."""

    def __init__(self, body: httpx2.AsyncByteStream, *, encoded: bool) -> None:
        self._body = body
        self._left = 0 if encoded else MOST_BYTES

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._body:
            self._left -= len(piece)
            if self._left < 0:
                raise httpx2.StreamError(f"the answer exceeds the {MOST_BYTES} {TOO_LARGE}, or is compressed")
            yield piece

    async def aclose(self) -> None:
        await self._body.aclose()
