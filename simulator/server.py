"""The HTTP face of the simulated model: the routes of the Messages API, and `/_sim` to look at what came in.

`create_app` makes the application, `serve` runs it until it is cancelled, `run` is a whole process.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
from collections.abc import Callable

import uvloop
from aiohttp import web
from aiohttp.typedefs import Handler

from simulator import models
from simulator.batches import Batches
from simulator.behaviours.choose import reply_to
from simulator.calls import Attempts, Call, CallLog
from simulator.deliver import Answer, Exit, Pace
from simulator.errors import ApiError, error_body
from simulator.options import SimulatorOptions
from simulator.prompt_cache import PromptCache, uncached
from simulator.render import compose
from simulator.reply import Delivery
from simulator.validation import check_request, read_json

__all__ = ["SimulatorOptions", "create_app", "run", "serve"]

log = logging.getLogger(__name__)

REQUEST_ID = web.RequestKey("request_id", str)
BACKLOG = 4096
SHUTDOWN_SECONDS = 0.5
ABOUT = {
    "name": "Nightshift simulated model",
    "simulated": True,
    "billed": False,
    "message": "This is a simulated model. It speaks the Messages API, no real model answers, and nothing is billed.",
}


def create_app(options: SimulatorOptions | None = None) -> web.Application:
    """The simulated model as an aiohttp application.

    Run it with `handler_cancellation=True`, as `serve` does; without it a client that hangs up is noticed only when
    the next byte is written.
    """
    return _Server(options or SimulatorOptions()).app


async def serve(
    host: str, port: int, options: SimulatorOptions | None = None, ready: Callable[[str], None] | None = None
) -> None:
    """Serves until it is cancelled, then cuts what is still open. `port` 0 takes a free one.

    `ready` is called with the server's URL once it listens. Raises OSError when the address cannot be bound.
    """
    runner = web.AppRunner(
        create_app(options), handler_cancellation=True, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=BACKLOG).start()
        if ready is not None:
            ready(_url(host, runner.addresses[0][1]))
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def run(
    host: str, port: int, options: SimulatorOptions | None = None, ready: Callable[[str], None] | None = None
) -> None:
    """Serves as a process of its own, on uvloop, until SIGTERM or SIGINT."""

    async def until_signal() -> None:
        server = asyncio.ensure_future(serve(host, port, options, ready))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, server.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await server

    uvloop.run(until_signal())


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server:
    """The handlers and what they share."""

    def __init__(self, options: SimulatorOptions) -> None:
        self.options = options
        self.calls = CallLog(options.recorded_calls)
        self.attempts = Attempts()
        self.cache = PromptCache()
        self.request_numbers = itertools.count(1)
        self.connections: set[web.RequestHandler] = set()
        self.app = web.Application(client_max_size=options.max_body_bytes, middlewares=[self.answer_errors])
        self.app.add_routes(
            [
                web.get("/", self.about),
                web.post("/v1/messages", self.create_message),
                web.post("/v1/messages/count_tokens", self.count_tokens),
                web.get("/v1/models", self.list_models),
                web.get("/v1/models/{id}", self.get_model),
                web.get("/_sim/calls", self.list_calls),
                web.delete("/_sim/calls", self.forget_calls),
                web.get("/_sim/stats", self.stats),
            ]
        )
        Batches(self.calls, self._answer).add_to(self.app)

    @web.middleware
    async def answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Gives each request its id and each error the API's shape."""
        request_id = request[REQUEST_ID] = f"req_sim_{next(self.request_numbers):08d}"
        try:
            if request.path.startswith("/v1/"):
                _check_key(request)
            return await handler(request)
        except ApiError as exc:
            error = exc
        except web.HTTPException as exc:
            error = ApiError(exc.status, f"{request.method} {request.path}: {exc.reason}")
        except ConnectionError:
            raise
        except Exception:
            log.exception("the simulated model failed")
            error = ApiError(500, "the simulated model failed; its log says why")
        return _error_response(error, request_id)

    async def about(self, _: web.Request) -> web.Response:
        return web.json_response(ABOUT)

    async def create_message(self, request: web.Request) -> web.StreamResponse:
        self._remember(request)
        with self.calls.record() as call:
            body = await read_json(request)
            answer = self._answer(body, call)
            return await Exit(request, request[REQUEST_ID], call).send(answer, stream=bool(body.get("stream")))

    async def count_tokens(self, request: web.Request) -> web.Response:
        body = check_request(await read_json(request), counting=True)
        return web.json_response(
            {"input_tokens": uncached(body)["input_tokens"]}, headers={"request-id": request[REQUEST_ID]}
        )

    async def list_models(self, _: web.Request) -> web.Response:
        return web.json_response(models.page())

    async def get_model(self, request: web.Request) -> web.Response:
        return web.json_response(models.find(request.match_info["id"]))

    async def list_calls(self, _: web.Request) -> web.Response:
        return web.json_response(self.calls.to_json())

    async def forget_calls(self, _: web.Request) -> web.Response:
        self.calls.reset()
        self.attempts.reset()
        self.cache.reset()
        return web.Response(status=204)

    async def stats(self, _: web.Request) -> web.Response:
        self._forget_closed()
        return web.json_response({**self.calls.stats(), "open_connections": len(self.connections)})

    def _answer(self, asked: object, call: Call) -> Answer:
        """What a request is to get, noted in its call. Raises ApiError with 400 for what the API would not take."""
        body = check_request(asked)
        call.model, call.messages = body["model"], len(body["messages"])
        reply = reply_to(body)
        call.script_key, call.turn = reply.delivery.script_key, reply.delivery.turn
        fault = self.attempts.next_fault(reply.delivery)
        refused = fault is not None and (fault.status is not None or fault.result is not None)
        counted = uncached(body) if refused else self.cache.count(body)
        message = compose(body, reply, counted)
        call.usage = None if refused else message.usage
        return Answer(message, self._pace(reply.delivery), fault)

    def _pace(self, delivery: Delivery) -> Pace:
        options = self.options
        return Pace(
            options.latency if delivery.latency is None else delivery.latency,
            options.chunk_delay if delivery.chunk_delay is None else delivery.chunk_delay,
            delivery.chunks or options.chunks,
        )

    def _remember(self, request: web.Request) -> None:
        before = len(self.connections)
        self.connections.add(request.protocol)
        if len(self.connections) > before and len(self.connections) % 1024 == 0:
            self._forget_closed()

    def _forget_closed(self) -> None:
        self.connections = {c for c in self.connections if c.transport is not None and not c.transport.is_closing()}


def _check_key(request: web.Request) -> None:
    if "authorization" not in request.headers and "x-api-key" not in request.headers:
        raise ApiError(401, "x-api-key header is required (any value will do: this is a simulated model)")


def _error_response(error: ApiError, request_id: str) -> web.Response:
    headers = {"request-id": request_id}
    if error.retry_after is not None:
        headers["retry-after"] = f"{error.retry_after:g}"
    return web.json_response(error_body(error.type, error.message, request_id), status=error.status, headers=headers)
