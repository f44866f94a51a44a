"""The HTTP face of the embedded memory: the routes of Qdrant's REST API that it has; any other answers 501."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic_core import from_json, to_json

from memory.embedded import translate, writes
from memory.embedded.engine import Collection, Engine
from memory.embedded.key import FILE as KEY_FILE
from memory.embedded.key import ensure_key

log = logging.getLogger(__name__)

ABOUT = {
    "title": "Nightshift embedded memory: Qdrant Edge behind a subset of Qdrant's REST API; no Qdrant server",
    "embedded": True,
    "version": "1.20.0",  # whose API it is a subset of
}
Route = Callable[[web.Request], Awaitable[Any]]
"""Answers with the `result` of Qdrant's envelope."""
QUERY_PARAMETERS = {"wait", "timeout"}
MOST_BODY_BYTES = 32 << 20
DONE = {"operation_id": 0, "status": "completed"}
OF_THE_CALLER = (
    "Vector dimension error", "Not existing vector name", "No range index", "No appropriate index", "Wrong input",
    "Bad request", "Validation",
)  # fmt: skip
"""How Edge begins to say that a request was wrong: it has one type of exception for everything."""
NOT_THERE = "No point with id"


def create_app(engine: Engine, api_key: str | None = None) -> web.Application:
    """The server as an aiohttp application. With a key, requests must carry it in `api-key`, as with Qdrant."""
    return _Server(engine, api_key).app


def run(data_dir: Path, host: str, port: int, ready: Callable[[str, Path], None]) -> None:
    """Serves as a process of its own, on uvloop, until SIGTERM or SIGINT. `ready` is called with the URL and the key's
    file once it listens. Raises BlockingIOError when another process has the data directory, OSError when the address
    cannot be bound.
    """
    key = ensure_key(data_dir)
    engine = Engine(data_dir)

    async def until_signal() -> None:
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        runner = web.AppRunner(create_app(engine, key), access_log=None, shutdown_timeout=2.0)
        await runner.setup()
        tidying = asyncio.create_task(engine.keep_tidy())
        try:
            await web.TCPSite(runner, host, port).start()
            ready(f"http://{host}:{runner.addresses[0][1]}", data_dir / KEY_FILE)
            stopping = asyncio.create_task(stopped.wait())
            await asyncio.wait({stopping, tidying}, return_when=asyncio.FIRST_COMPLETED)
            if tidying.done():
                tidying.result()
        finally:
            await runner.cleanup()
            tidying.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await tidying
            engine.close()

    uvloop.run(until_signal())


class _RefusedError(Exception):
    """A request that is answered with an error status."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class _Server:
    def __init__(self, engine: Engine, api_key: str | None) -> None:
        self._engine = engine
        self._api_key = api_key
        self.app = web.Application(client_max_size=MOST_BODY_BYTES, middlewares=[self._answer_errors])
        collection, points = "/collections/{name}", "/collections/{name}/points"
        routes: list[tuple[str, str, Route]] = [
            ("GET", "/collections", self._list),
            ("GET", collection, self._info),
            ("PUT", collection, self._create),
            ("DELETE", collection, self._delete),
            ("GET", f"{collection}/exists", self._exists),
            ("PUT", f"{collection}/index", self._create_index),
            ("PUT", f"{collection}/vectors/{{vector}}", self._create_vector),
            ("DELETE", f"{collection}/vectors/{{vector}}", self._delete_vector),
            ("POST", f"{collection}/facet", self._read(Collection.facet)),
            ("PUT", points, self._update("upsert")),
            ("PUT", f"{points}/vectors", self._update("update_vectors")),
            ("POST", f"{points}/payload", self._update("set_payload")),
            ("POST", f"{points}/delete", self._update("delete")),
            ("POST", f"{points}/batch", self._batch),
            ("POST", f"{points}/query", self._read(Collection.query)),
            ("POST", f"{points}/scroll", self._read(Collection.scroll)),
            ("POST", f"{points}/count", self._read(Collection.count)),
        ]
        self.app.router.add_get("/", self._about)
        for method, path, route in routes:
            self.app.router.add_route(method, path, _answers(route))

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._check(request)
            return await handler(request)
        except _RefusedError as exc:
            return _error(exc.status, str(exc))
        except translate.UnsupportedError as exc:
            return _error(501, f"the embedded memory does not support {exc}; a Qdrant server may")
        except FileExistsError as exc:
            return _error(409, str(exc))
        except (translate.WrongError, ValueError, TypeError, OverflowError) as exc:
            return _error(400, f"Wrong input: {exc}")
        except web.HTTPRequestEntityTooLarge:
            return _error(413, f"expected at most {MOST_BODY_BYTES} bytes")
        except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
            return _error(501, f"the embedded memory does not support {request.method} {request.path}")
        except Exception as exc:
            if str(exc).startswith(OF_THE_CALLER):
                return _error(400, f"Wrong input: {exc}")
            if str(exc).startswith(NOT_THERE):
                return _error(404, f"Not found: {exc}")
            log.exception("%s %s", request.method, request.path)
            return _error(500, f"Service internal error: {exc}")

    def _check(self, request: web.Request) -> None:
        if self._api_key is not None and request.path != "/":
            given = request.headers.get("api-key", "")
            if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._api_key.encode()):
                raise _RefusedError(401, "Must provide an API key: the embedded memory keeps its own in api.key")
        unknown = sorted(set(request.query) - QUERY_PARAMETERS)
        if unknown:
            raise translate.UnsupportedError(f"the query parameter {', '.join(unknown)}")
        if request.query.get("wait", "true") != "true":
            raise translate.UnsupportedError("wait=false")

    # ---- routes

    async def _about(self, request: web.Request) -> web.Response:
        return web.json_response(ABOUT)

    async def _list(self, request: web.Request) -> Any:
        return {"collections": [{"name": name} for name in self._engine.collections]}

    async def _exists(self, request: web.Request) -> Any:
        return {"exists": request.match_info["name"] in self._engine.collections}

    async def _info(self, request: web.Request) -> Any:
        return self._collection(request).info()

    async def _create(self, request: web.Request) -> Any:
        self._engine.create(request.match_info["name"], await _body(request))
        return True

    async def _delete(self, request: web.Request) -> Any:
        return await self._engine.delete(request.match_info["name"])

    async def _create_index(self, request: web.Request) -> Any:
        await self._collection(request).create_index(await _body(request))
        return DONE

    async def _create_vector(self, request: web.Request) -> Any:
        await self._collection(request).create_vector(request.match_info["vector"], await _body(request))
        return DONE

    async def _delete_vector(self, request: web.Request) -> Any:
        await self._collection(request).delete_vector(request.match_info["vector"])
        return DONE

    async def _batch(self, request: web.Request) -> Any:
        body = await _body(request)
        operations = writes.batch(body)
        deletes = any("delete" in each for each in body["operations"])
        await self._collection(request).update(operations, deletes)
        return [DONE] * len(operations)

    def _update(self, kind: str) -> Route:
        async def handle(request: web.Request) -> Any:
            operation = writes.UPDATES[kind](await _body(request))
            await self._collection(request).update([operation], deletes=kind == "delete")
            return DONE

        return handle

    def _read(self, method: Callable[[Collection, Any], Awaitable[Any]]) -> Route:
        async def handle(request: web.Request) -> Any:
            return await method(self._collection(request), await _body(request))

        return handle

    def _collection(self, request: web.Request) -> Collection:
        name = request.match_info["name"]
        if name not in self._engine.collections:
            raise _RefusedError(404, f"Not found: Collection `{name}` doesn't exist!")
        return self._engine.collections[name]


def _answers(route: Route) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        begun = time.perf_counter()
        result = await route(request)
        body = to_json({"result": result, "status": "ok", "time": time.perf_counter() - begun})
        return web.Response(body=body, content_type="application/json")

    return handle


def _error(status: int, detail: str) -> web.Response:
    return web.json_response({"status": {"error": detail}, "time": 0.0}, status=status)


async def _body(request: web.Request) -> Any:
    return from_json(await request.read() or b"{}", allow_inf_nan=False)
