"""The client of the HTTP API for the commands: `nightshift_client`, with failures in the words of the command line."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import httpx2

import nightshift_client
from cli.errors import RefusedError, UnreachableError, UsageError
from cli.invocation import command
from cli.settings import Connection

Json = dict[str, Any]
TIMEOUT = 30.0
AWAY_SECONDS = 60.0
"""How long a platform whose events we follow may be away before we give up. Any other command fails at once: whoever
sits before it would rather know.
"""


class Client:
    """The API of one platform. Every method raises RefusedError and UnreachableError."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._api = nightshift_client.AsyncClient(connection.url, connection.key, timeout=TIMEOUT, patience=0)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._api.aclose()

    async def get(self, path: str, params: Mapping[str, Any] | None = None, *, timeout: float = TIMEOUT) -> Any:
        """The answer to a GET, which may take `timeout` seconds; None parameters are left out."""
        return await self._call("GET", path, query=params, timeout=timeout)

    async def post(
        self,
        path: str,
        body: Json | None = None,
        params: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> Any:
        """The answer to a POST of JSON, or of nothing; None parameters are left out."""
        return await self._call("POST", path, body, query=params, idempotency_key=idempotency_key)

    async def put(self, path: str, body: Json) -> Any:
        """The answer to a PUT of JSON."""
        return await self._call("PUT", path, body)

    async def patch(self, path: str, body: Json) -> Any:
        """The answer to a PATCH of JSON."""
        return await self._call("PATCH", path, body)

    async def delete(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """The answer to a DELETE, None when it is empty; None parameters are left out."""
        return await self._call("DELETE", path, query=params)

    async def upload(self, path: Path) -> Json:
        """Sends a file as it is read; the record of the stored file."""
        try:
            with self._in_our_words():
                return cast("Json", await self._api.upload(path))
        except OSError as exc:
            raise UsageError(f"{path} cannot be read: {exc.strerror}") from None

    async def download(self, file_id: str, target: Path) -> int:
        """Writes a stored file to `target`; its size in bytes."""
        pieces = self._pieces(f"/v1/files/{quote(file_id, safe='')}")
        size = 0
        try:
            async with aclosing(pieces):
                first = await anext(pieces, b"")  # nothing is written for a refusal
                with await asyncio.to_thread(target.open, "wb") as file:
                    size += await asyncio.to_thread(file.write, first)
                    async for piece in pieces:
                        size += await asyncio.to_thread(file.write, piece)
        except OSError as exc:
            raise UsageError(f"{target} cannot be written: {exc.strerror}") from None
        return size

    async def stream(self, path: str, params: Mapping[str, Any] | None = None) -> AsyncIterator[str]:
        """The text of a long answer, in pieces; one that is cut off raises UnreachableError."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        async with aclosing(self._pieces(path, params)) as pieces:
            async for piece in pieces:
                yield decoder.decode(piece)

    async def audit(self, **filters: Any) -> AsyncGenerator[Json, None]:
        """The entries of the audit log that fit, the newest first, page after page."""
        with self._in_our_words():
            async with aclosing(self._api.audit(**filters)) as entries:
                async for entry in entries:
                    yield cast("Json", entry)

    async def events(self, job_id: str) -> AsyncGenerator[Json, None]:
        """Every event of the job once, in order, until it has ended; between them, live, its `message.delta`."""
        with self._in_our_words():
            async with aclosing(self._api.events(job_id, patience=AWAY_SECONDS)) as events:
                async for event in events:
                    yield cast("Json", event)

    async def until_ready(self) -> None:
        """Returns when a submit would be accepted, or is not because someone stopped the platform (`kill_switch`).
        Waits for ever: bound it, or cancel it.
        """
        while True:
            try:
                await self._api.call("GET", "/readyz")
                return
            except nightshift_client.ClientError as exc:
                if getattr(exc, "code", None) == "kill_switch":
                    return
            await asyncio.sleep(0.03)

    async def _call(self, method: str, path: str, body: Json | None = None, **options: Any) -> Any:
        with self._in_our_words():
            return await self._api.call(method, path, body, **options)

    async def _pieces(self, path: str, params: Mapping[str, Any] | None = None) -> AsyncGenerator[bytes, None]:
        with self._in_our_words():
            async with aclosing(self._api.stream(path, params)) as pieces:
                async for piece in pieces:
                    yield piece

    @contextmanager
    def _in_our_words(self) -> Iterator[None]:
        try:
            yield
        except nightshift_client.ApiError as exc:
            raise _refused(exc) from exc
        except nightshift_client.UnreachableError as exc:
            what = (
                "does not answer in time" if isinstance(exc.__cause__, httpx2.TimeoutException) else "cannot be reached"
            )
            hint = f"start one with `{command('up')}`, or name yours in NIGHTSHIFT_URL"
            where = f"{self.connection.url} ({self.connection.url_from})"
            raise UnreachableError(f"the platform at {where} {what}; {hint}") from exc


def _refused(error: nightshift_client.ApiError) -> RefusedError | UnreachableError:
    """A refusal, or what to say of a platform that is there and cannot serve."""
    if error.status >= 500 or error.status < 400:
        return UnreachableError(f"the platform answered {error.status}: {error.detail}")
    if error.status == 401:
        hint = f"set NIGHTSHIFT_API_KEY, or --data-dir to the directory where `{command('up')}` wrote its admin.key"
        return RefusedError(error.status, error.code, f"{error.detail}; {hint}")
    return RefusedError(error.status, error.code, error.detail)
