"""The gate that every JSON body passes: small, plain, shallow, and meaning the same to every parser."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine
from email.message import Message
from functools import lru_cache
from typing import Any, Never

from fastapi import Request, Response

from api.errors import RefusedError
from api.query import KnownQueryRoute

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_MEMBERS = 10_000
"""Of one object; each unknown one would become an error with a place and a text."""


class StrictRequest(Request):
    """A request whose body is read with a limit and parsed without leniency. Raises RefusedError."""

    async def body(self) -> bytes:
        """The body, at most `MAX_BYTES`, empty or said to be plain JSON."""
        if not hasattr(self, "_body"):
            self._body = await self._read()
            if self._body:
                self._check_headers()
        return self._body

    async def json(self) -> Any:
        """The body as JSON; None when it is empty."""
        if not hasattr(self, "_json"):
            body = await self.body()
            self._json = parse_json(body) if body else None
        return self._json

    def _check_headers(self) -> None:
        refuse_compressed(self)
        if not _is_json(self.headers.get("content-type", "")):
            raise RefusedError(
                415, "unsupported_media_type", "send the body as Content-Type: application/json in UTF-8"
            )

    async def _read(self) -> bytes:
        declared = self.headers.get("content-length", "0")
        if not declared.isascii() or not declared.isdigit() or len(declared) > 12 or int(declared) > MAX_BYTES:
            raise _too_large()
        pieces: list[bytes] = []
        size = 0
        async for piece in self.stream():
            size += len(piece)
            if size > MAX_BYTES:
                raise _too_large()
            pieces.append(piece)
        return b"".join(pieces)


class StrictRoute(KnownQueryRoute):
    """A route whose handler sees a StrictRequest, and that knows every parameter of its query."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler behind the gate."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict


def refuse_compressed(request: Request) -> None:
    """Raises RefusedError for a body that is said to be encoded: unpacked, a small one may fill the memory."""
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise RefusedError(415, "unsupported_encoding", "compressed bodies are not accepted")


@lru_cache(maxsize=64)
def _is_json(content_type: str) -> bool:
    said = Message()
    said["content-type"] = content_type
    return said.get_content_type() == "application/json" and said.get_content_charset("utf-8") in ("utf-8", "utf8")


def parse_json(body: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises RefusedError for what is no JSON, and for what parsers read differently: duplicate keys, numbers beyond a
    double, lone surrogates, NaN; likewise for more than `MAX_DEPTH` levels.
    """
    try:
        value = json.loads(
            body.decode(),
            object_pairs_hook=_unique,
            parse_float=_finite,
            parse_constant=_no_constant,
        )
        if b"\\u" in body:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as exc:
        raise _malformed(f"not JSON: {exc.msg} at character {exc.pos}") from None
    except UnicodeDecodeError:
        raise _malformed("not UTF-8") from None
    except UnicodeEncodeError:
        raise _malformed("a string holds half of a surrogate pair") from None
    except ValueError:
        raise _malformed("a number has too many digits") from None
    except RecursionError:
        raise _too_deep() from None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise _too_deep()
    return value


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return True


def _children(value: Any) -> list[Any]:
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [member for member in members if isinstance(member, dict | list)]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_MEMBERS:
        raise _malformed(f"an object has more than {MAX_MEMBERS} members")
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        name = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _malformed(f"the key {name[:80]!r} stands twice in one object")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _malformed(f"the number {text[:40]} is beyond the range of a double")
    return number


def _no_constant(text: str) -> Never:
    raise _malformed(f"{text} is no JSON")


def _malformed(detail: str) -> RefusedError:
    return RefusedError(400, "malformed_body", f"the body is refused: {detail}")


def _too_deep() -> RefusedError:
    return RefusedError(400, "too_deep", f"the body is refused: it is nested more than {MAX_DEPTH} levels deep")


def _too_large() -> RefusedError:
    return RefusedError(413, "body_too_large", f"a body has at most {MAX_BYTES} bytes; files go to POST /v1/files")
