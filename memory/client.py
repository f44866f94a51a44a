"""The connection to Qdrant, a server's or the embedded one, and what its failures become."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from qdrant_client import AsyncQdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from memory.errors import MemoryUnavailableError

TIMEOUT_SECONDS = 10
KEPT_OPEN = httpx.Limits(max_keepalive_connections=20)
"""On loopback Qdrant's client would connect anew for each request, which takes as long as a query does."""


def connect(url: str, api_key: str | None = None, timeout: int = TIMEOUT_SECONDS) -> AsyncQdrantClient:
    """A client of a Qdrant server or of the embedded memory; nothing is sent yet. `timeout` is in seconds."""
    # The key as a header, because the client warns of one without TLS, which on loopback is as meant.
    headers = None if api_key is None else {"api-key": api_key}
    return AsyncQdrantClient(url=url, headers=headers, timeout=timeout, limits=KEPT_OPEN, check_compatibility=False)


@asynccontextmanager
async def calling(tolerate: int | None = None) -> AsyncIterator[None]:
    """Calls of Qdrant's client: turns its errors into MemoryUnavailableError. An answer of `tolerate` is none."""
    try:
        yield
    except UnexpectedResponse as exc:
        if exc.status_code != tolerate or tolerate is None:
            detail = exc.content.decode("utf-8", "replace")[:500]
            raise MemoryUnavailableError(f"Qdrant answered {exc.status_code}: {detail}", exc.status_code) from exc
    except ResponseHandlingException as exc:
        raise MemoryUnavailableError(f"{type(exc.source).__name__} {exc.source}") from exc
    except ResourceExhaustedResponse as exc:
        raise MemoryUnavailableError(str(exc), 429) from exc
