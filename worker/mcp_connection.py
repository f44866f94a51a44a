"""The connection to one MCP server, for all jobs of the worker. A task of its own owns the SDK's client, which cancels
whoever is inside it when the server goes away; what calls is another task, and gets an error result instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import mcp_types
import structlog
from mcp import Client, MCPError
from pydantic import ValidationError

from agent_core.errors import ToolError
from agent_core.mcp import McpServer
from agent_core.results import as_data
from agent_core.types import Json
from jobs.mcp import Listing, pin_of
from worker.mcp_transport import CONNECT_SECONDS, FORGOTTEN, TOO_LARGE, open_transport

LIST_SECONDS = 10.0
LOOK_AGAIN_SECONDS = 60.0
REST_SECONDS = 0.2
"""Between two listings, however often the server says that they changed."""
REACH_SECONDS = 5.0
"""How long a call waits for a server that is away."""
FIRST_DELAY, LONGEST_DELAY = 0.2, 30.0
MOST_TOOLS, MOST_PAGES, MOST_LISTING_CHARS = 500, 100, 1_000_000
LONGEST_ERROR = 2_000
log = structlog.get_logger("worker")


class Connection:
    """Keeps a connection to a server, and makes it anew when it breaks. `on_listing` hears what the server offers."""

    def __init__(
        self, server: McpServer, environment: Mapping[str, str], on_listing: Callable[[Listing], Awaitable[None]]
    ) -> None:
        self._server = server
        self._environment = environment
        self._on_listing = on_listing
        self._client: Client | None = None
        self._there = asyncio.Event()
        self._look = asyncio.Event()
        self._tools: dict[str, tuple[str, str]] = {}
        self._calls = 0
        self._why_ended = ""
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self.tried = asyncio.Event()
        """The first attempt to connect is over, whichever way it went."""

    @property
    def away(self) -> bool:
        """Whether the server cannot be called at the moment."""
        return not self._there.is_set()

    def start(self) -> None:
        """Begins to connect."""
        self._task = asyncio.create_task(self._keep(), name=f"mcp-{self._server.name}")

    async def aclose(self) -> None:
        """Ends the connection; a subprocess is ended with it."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()  # what the SDK has on its way up may take the place of the cancellation
            await asyncio.gather(self._task, return_exceptions=True)

    # ---- calls

    async def call(self, exposed: str, arguments: Json, pin: str, *, repeatable: bool) -> Any:
        """The result of a tool call. Raises ToolError: `tool_changed`, `mcp_unavailable`, `result_too_large`,
        `invalid_arguments`, `mcp_error`, and `tool_error` with the tool's own words.
        """
        try:
            return await self._call(exposed, arguments, pin)
        except asyncio.CancelledError:
            self._look.set()  # it may hang
            raise
        except MCPError as exc:
            raise self._explained(exc, repeatable) from exc
        except ValidationError as exc:
            raise ToolError(f"MCP server {self._server.name} answered with no result", code="mcp_error") from exc

    async def _call(self, exposed: str, arguments: Json, pin: str) -> Any:
        for again in (True, False):
            client = await self._reach()
            request = mcp_types.CallToolRequest(
                params=mcp_types.CallToolRequestParams(name=self._pinned(exposed, pin), arguments=arguments)
            )
            self._calls += 1
            try:
                # not client.call_tool: that checks the result by a schema of the server's, which can take for ever
                return _value(await client.session.send_request(request, mcp_types.CallToolResult))
            except MCPError as exc:
                if not again or exc.code != mcp_types.INVALID_REQUEST or self._why_ended != FORGOTTEN:
                    raise
                self._leave(client)  # and it has not run the call
            finally:
                self._calls -= 1
        raise AssertionError("unreachable")

    async def _reach(self) -> Client:
        try:
            async with asyncio.timeout(REACH_SECONDS):
                await self._there.wait()
        except TimeoutError:
            name = self._server.name
            raise ToolError(f"MCP server {name} is away", code="mcp_unavailable", retryable=True) from None
        assert self._client is not None
        return self._client

    def _pinned(self, exposed: str, pin: str) -> str:
        """The server's own name of a tool, which is what it was when it was pinned. Raises ToolError."""
        name, now = self._tools.get(exposed, ("", ""))
        if now != pin:
            what = "is another tool now" if name else "is no longer there"
            raise ToolError(f"{exposed} {what}: its server changed it, and it stays off until an admin accepts that "
                            f"(nightshift agents accept-tools {self._server.name})", code="tool_changed")  # fmt: skip
        return name

    def _explained(self, exc: MCPError, repeatable: bool) -> ToolError:
        name = self._server.name
        if TOO_LARGE in exc.message or (exc.code == mcp_types.CONNECTION_CLOSED and TOO_LARGE in self._why_ended):
            why = f"MCP server {name}: {self._why_ended or exc.message}; ask for less at once"
            return ToolError(why, code="result_too_large")
        if exc.code == mcp_types.INVALID_PARAMS:
            return ToolError(exc.message[:LONGEST_ERROR], code="invalid_arguments")
        if exc.code in (mcp_types.CONNECTION_CLOSED, mcp_types.INTERNAL_ERROR, mcp_types.REQUEST_TIMEOUT):
            self._look.set()
            effect = "" if repeatable else "; the call may have had its effect all the same"
            text = f"MCP server {name} broke the call off: {exc.message[:LONGEST_ERROR]}{effect}"
            return ToolError(text, code="mcp_unavailable", retryable=repeatable)
        return ToolError(exc.message[:LONGEST_ERROR], code="mcp_error")

    # ---- the connection

    async def _keep(self) -> None:
        delay = FIRST_DELAY
        while not self._closed:
            try:
                self._why_ended = ""
                self._look.clear()
                transport = open_transport(self._server, self._environment, self._ended)
                async with (
                    asyncio.timeout(CONNECT_SECONDS + LIST_SECONDS) as patience,
                    self._client_of(transport) as client,
                ):
                    listing = await self._list(client)
                    patience.reschedule(None)
                    delay = FIRST_DELAY
                    await self._on_listing(listing)
                    await self._serve(client)
            except (Exception, BaseExceptionGroup) as exc:
                log.warning("an MCP server is away", server=self._server.name, error=_said(exc))
            finally:
                self._leave()
                self.tried.set()
            if not self._closed:
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311
            delay = min(delay * 2, LONGEST_DELAY)

    def _client_of(self, transport: Any) -> Client:
        async def hear(message: object) -> None:
            if isinstance(message, mcp_types.ToolListChangedNotification):
                self._look.set()

        info = mcp_types.Implementation(name="nightshift", version="1")
        return Client(transport, message_handler=hear, client_info=info, cache=None)

    async def _serve(self, client: Client) -> None:
        """Lets the client be called until it is of no use; raises what says that it is not."""
        self._client = client
        self._there.set()
        self.tried.set()
        log.info("an MCP server is there", server=self._server.name, tools=len(self._tools))
        listening = asyncio.create_task(self._listen(client))
        try:
            while True:
                await self._wait_for_a_look()
                if self._client is not client:
                    return
                async with asyncio.timeout(LIST_SECONDS):
                    listing = await self._list(client)
                await self._on_listing(listing)
                await asyncio.sleep(REST_SECONDS)
        finally:
            listening.cancel()

    async def _wait_for_a_look(self) -> None:
        """Returns when the server should be looked at. One that is busy with calls is not asked in between."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                    await self._look.wait()
            if self._look.is_set() or not self._calls:
                self._look.clear()
                return

    async def _listen(self, client: Client) -> None:
        """Hears of changed tools from servers that tell only who subscribes."""
        with contextlib.suppress(Exception):  # an older server knows no subscriptions, and `hear` hears it
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self._look.set()

    async def _list(self, client: Client) -> Listing:
        listing: Listing = {}
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            page = await client.list_tools(cursor=cursor)
            listing.update({tool.name: _as_said(tool) for tool in page.tools})
            cursor = page.next_cursor
            if not cursor or len(listing) > MOST_TOOLS:
                break
        if cursor or len(listing) > MOST_TOOLS or len(json.dumps(listing)) > MOST_LISTING_CHARS:
            raise ValueError(f"it lists more than {MOST_TOOLS} tools or {MOST_LISTING_CHARS} characters of them")
        self._tools = {self._server.exposed(name): (name, pin_of(name, said)) for name, said in listing.items()}
        return listing

    def _leave(self, client: Client | None = None) -> None:
        """Stops using the client, if it is still that one."""
        if client is None or self._client is client:
            self._client = None
            self._there.clear()
            self._look.set()

    def _ended(self, why: str) -> None:
        self._why_ended = why
        if why != FORGOTTEN:  # the answer that says so is still to come
            self._leave()


def _as_said(tool: mcp_types.Tool) -> Json:
    annotations = tool.annotations.model_dump(mode="json", by_alias=True, exclude_none=True) if tool.annotations else {}
    return {"description": tool.description or "", "input_schema": tool.input_schema, "annotations": annotations}


def _value(result: mcp_types.CallToolResult) -> Any:
    """What the model gets to see of a result. Raises ToolError for a failure of the tool."""
    blocks = [_text(block) for block in result.content]
    if result.is_error:
        said = "\n".join(blocks)[:LONGEST_ERROR]  # errors are not framed elsewhere: most are the platform's own words
        raise ToolError(as_data("the MCP server", said) if said else "the tool failed and did not say why")
    return result.structured_content if result.structured_content is not None and not blocks else "\n".join(blocks)


def _text(block: mcp_types.ContentBlock) -> str:
    match block:
        case mcp_types.TextContent(text=text):
            return text
        case mcp_types.EmbeddedResource(resource=mcp_types.TextResourceContents(text=text)):
            return text
        case mcp_types.ResourceLink(uri=uri):
            return f"[a resource: {uri}]"
        case _:
            return f"[{block.type}: cannot be shown]"


def _said(exc: BaseException) -> str:
    """The innermost failures of a group, on one line."""
    inner = exc.exceptions if isinstance(exc, BaseExceptionGroup) else ()
    return "; ".join(dict.fromkeys(_said(one) for one in inner)) or f"{type(exc).__name__}: {exc}"[:300]
