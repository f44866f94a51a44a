"""Refuses what a query asks for and nobody would hear: a filter that is misspelt must not answer with everything."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import Request, Response
from fastapi.routing import APIRoute

from jobs.errors import InvalidError


class KnownQueryRoute(APIRoute):
    """A route that raises InvalidError for a query parameter that it does not have."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler behind that check."""
        handler = super().get_route_handler()
        known = [field.alias for field in self.dependant.query_params]

        async def checked(request: Request) -> Response:
            if request.scope["query_string"]:
                refuse_unreadable(request)
                refuse_unknown(request, known)
            return await handler(request)

        return checked


def refuse_unreadable(request: Request) -> None:
    """Raises InvalidError for a query that is not UTF-8, of which Starlette would make other characters."""
    try:
        unquote_to_bytes(request.scope["query_string"]).decode()
    except UnicodeDecodeError:
        raise InvalidError("the query is not UTF-8; encode it before it is percent-encoded") from None


def refuse_unknown(request: Request, known: list[str]) -> None:
    """Raises InvalidError that names the first parameter that is not known, and those that are."""
    for name in request.query_params:
        if name not in known:
            there_are = f"there are: {', '.join(known)}" if known else "there are none here"
            raise InvalidError(f"there is no query parameter {name[:80]!r}; {there_are}")
