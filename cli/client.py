"""A client of the HTTP API for the commands: JSON in and out, uploads, and a job's events as they happen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2

from cli.errors import RefusedError, UnreachableError, UsageError
from cli.invocation import command
from cli.settings import Connection

Json = dict[str, Any]
CHUNK = 1 << 16
PATIENCE, CONNECT_SECONDS = 30.0, 5.0
TIMEOUT = httpx2.Timeout(PATIENCE, connect=CONNECT_SECONDS)


class Client:
    """The API of one platform. Every method raises RefusedError and UnreachableError."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        headers = {"Authorization": f"Bearer {connection.key}"} if connection.key else {}
        # Settings for proxies are for the world outside.
        self.http = httpx2.AsyncClient(
            base_url=connection.url, headers=headers, timeout=TIMEOUT, trust_env=not connection.local
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.http.aclose()

    async def get(self, path: str, params: Mapping[str, Any] | None = None, *, patience: float = PATIENCE) -> Any:
        """The answer to a GET, which may take `patience` seconds; None parameters are left out."""
        timeout = httpx2.Timeout(patience, connect=CONNECT_SECONDS)
        return await self._send("GET", path, params=_given(params), timeout=timeout)

    async def post(self, path: str, body: Json | None = None, headers: Mapping[str, str] | None = None) -> Any:
        """The answer to a POST of JSON, or of nothing."""
        extra = {} if body is None else {"json": body}
        return await self._send("POST", path, headers=headers, **extra)

    async def put(self, path: str, body: Json) -> Any:
        """The answer to a PUT of JSON."""
        return await self._send("PUT", path, json=body)

    async def patch(self, path: str, body: Json) -> Any:
        """The answer to a PATCH of JSON."""
        return await self._send("PATCH", path, json=body)

    async def delete(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """The answer to a DELETE, None when it is empty; None parameters are left out."""
        return await self._send("DELETE", path, params=_given(params))

    async def upload(self, path: Path) -> Json:
        """Sends a file as it is read; the record of the stored file."""
        try:
            file = await asyncio.to_thread(path.open, "rb")
        except OSError as exc:
            raise UsageError(f"{path} cannot be read: {exc.strerror}") from None
        with file:

            async def chunks() -> AsyncIterator[bytes]:
                while chunk := await asyncio.to_thread(file.read, CHUNK):
                    yield chunk

            headers = {"Content-Type": "application/octet-stream"}
            sent = self._send("POST", "/v1/files", params={"name": path.name}, headers=headers, content=chunks())
            return dict(await sent)

    async def download(self, file_id: str, target: Path) -> int:
        """Writes a stored file to `target`; its size in bytes."""
        size = 0
        try:
            async with self.http.stream("GET", f"/v1/files/{quote(file_id, safe='')}") as response:
                await raise_for_problem(response)
                with await asyncio.to_thread(target.open, "wb") as file:
                    async for chunk in response.aiter_bytes():
                        size += await asyncio.to_thread(file.write, chunk)
        except httpx2.TransportError as exc:
            raise unreachable(self.connection, exc) from exc
        except OSError as exc:
            raise UsageError(f"{target} cannot be written: {exc.strerror}") from None
        return size

    async def stream(self, path: str, params: Mapping[str, Any] | None = None) -> AsyncIterator[str]:
        """The text of a long answer, in pieces; one that is cut off raises UnreachableError."""
        try:
            async with self.http.stream("GET", path, params=_given(params)) as response:
                await raise_for_problem(response)
                async for piece in response.aiter_text():
                    yield piece
        except httpx2.TransportError as exc:
            raise unreachable(self.connection, exc) from exc

    async def until_ready(self) -> None:
        """Returns when a submit would be accepted, or is not because someone stopped the platform (`kill_switch`).
        Waits for ever: bound it, or cancel it.
        """
        while True:
            try:
                response = await self.http.get("/readyz")
                if response.status_code == 200 or _problem(response).get("code") == "kill_switch":
                    return
            except httpx2.TransportError:
                pass
            await asyncio.sleep(0.03)

    async def _send(self, method: str, path: str, **options: Any) -> Any:
        try:
            response = await self.http.request(method, path, **options)
        except httpx2.TransportError as exc:
            raise unreachable(self.connection, exc) from exc
        await raise_for_problem(response)
        return response.json() if response.content else None


def unreachable(connection: Connection, cause: Exception | None = None) -> UnreachableError:
    """What to say when the API does not answer."""
    timeout = isinstance(cause, httpx2.TimeoutException)
    what = "does not answer in time" if timeout else "cannot be reached"
    hint = f"start one with `{command('up')}`, or name yours in NIGHTSHIFT_URL"
    return UnreachableError(f"the platform at {connection.url} ({connection.url_from}) {what}; {hint}")


async def raise_for_problem(response: httpx2.Response) -> None:
    """Raises RefusedError for a 4xx, UnreachableError for a platform that is there and cannot serve."""
    status = response.status_code
    if status < 300:
        return
    await response.aread()
    refused = RefusedError(status, _problem(response))
    if status >= 500 or status < 400:
        raise UnreachableError(f"the platform answered {status}: {refused}")
    if status == 401:
        hint = f"set NIGHTSHIFT_API_KEY, or --data-dir to the directory where `{command('up')}` wrote its admin.key"
        raise RefusedError(status, {**refused.problem, "detail": f"{refused}; {hint}"})
    raise refused


def _given(params: Mapping[str, Any] | None) -> Json:
    return {name: value for name, value in (params or {}).items() if value is not None}


def _problem(response: httpx2.Response) -> Json:
    try:
        body = response.json()
    except ValueError:
        body = None
    return body if isinstance(body, dict) else {"title": response.reason_phrase}
