"""The clients: their connections, and nothing else; what they do is in `operations`."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import httpx2

from nightshift_client.operations import Operations
from nightshift_client.transports import Awaiting, Blocking

LOOPBACK = ("127.0.0.1", "::1", "localhost")
TIMEOUT = PATIENCE = 30.0


class Client(Operations, Blocking):
    """The platform at a URL, by blocking calls. `key` is an API key; `timeout` is how many seconds an answer may take,
    and `patience` how many a platform that is away or busy is asked again.
    """

    def __init__(self, url: str, key: str | None = None, *, timeout: float = TIMEOUT, patience: float = PATIENCE):
        super().__init__(timeout=timeout, patience=patience)
        self.http = httpx2.Client(**_options(url, key))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections."""
        self.http.close()


class AsyncClient(Operations, Awaiting):
    """The same for asyncio: what returns a result there is awaited here, and what is iterated there by `async for`."""

    def __init__(self, url: str, key: str | None = None, *, timeout: float = TIMEOUT, patience: float = PATIENCE):
        super().__init__(timeout=timeout, patience=patience)
        self.http = httpx2.AsyncClient(**_options(url, key))

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends the connections."""
        await self.http.aclose()


def _options(url: str, key: str | None) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    # Settings for proxies are for the world outside.
    return {"base_url": url, "headers": headers, "trust_env": urlsplit(url).hostname not in LOOPBACK}
