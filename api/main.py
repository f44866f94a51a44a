"""The API process: the app under uvicorn."""

from __future__ import annotations

import gc
import signal
import socket
import sys

import structlog
import uvicorn
from fastapi import FastAPI
from redis.exceptions import RedisError

from agent_core.failpoints import arm
from agent_core.redaction import Redactor
from api.app import REDIS_SECONDS, create_app
from api.protocol import GuardedProtocol
from api.settings import Settings
from jobs.durability import look
from jobs.errors import UnavailableError
from jobs.folders import make_private
from jobs.link import connect
from jobs.logs import configure_logging
from jobs.settings import SettingsError, load

log = structlog.get_logger(__name__)

GC_THRESHOLDS = (20_000, 20, 20)


class Server(uvicorn.Server):
    """Ends event streams and waiting requests before it waits for requests to end."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn on SIGTERM and SIGINT."""
        self._app.state.services.hub.close()
        await super().shutdown(sockets)


def server(settings: Settings) -> Server:
    """The server, ready to run."""
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=GuardedProtocol,
        ws="none",
        limit_concurrency=settings.max_connections,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=True,
        timeout_graceful_shutdown=settings.drain_seconds,  # type: ignore[arg-type] # goes to asyncio.wait_for as it is
    )
    return Server(config, app)


def serve(settings: Settings) -> None:
    """Runs the API until SIGTERM or SIGINT. Exits at once when Redis is there and would throw jobs away."""
    configure_logging(settings.log_format, settings.log_level, Redactor(settings.secrets))
    arm(settings.failpoints)
    _look_at_redis(settings)
    if settings.files_url is None:
        _own_data_dir(settings)
    ready = server(settings)
    # the app's own objects live as long as the process; not walking them again is worth a fifth of a request's time
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    # uvicorn ends by raising the signal that ended it anew; a stop that was asked for is no failure
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    ready.run()


def _own_data_dir(settings: Settings) -> None:
    """Makes the directory of uploads for its owner alone. Without it the API serves all but those."""
    try:
        make_private(settings.data_dir)
    except OSError as exc:
        log.warning("uploads cannot be kept: NIGHTSHIFT_DATA_DIR cannot be made", error=str(exc))


def _look_at_redis(settings: Settings) -> None:
    """Refuses a Redis that evicts keys, and warns of one without a log. One that is away is waited for: see /readyz."""
    try:
        with connect(settings.redis_url, REDIS_SECONDS) as client:
            found = look(client)
    except UnavailableError as exc:
        print(f"nightshift api: NIGHTSHIFT_REDIS_URL is wrong: {exc}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except RedisError as exc:
        log.warning("Redis does not answer yet", error=str(exc))
        return
    (log.info if found.sound else log.warning)("durability", promise=found.promise)


if __name__ == "__main__":
    try:
        given = load(Settings)
    except SettingsError as exc:
        print(f"nightshift api: {exc}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    serve(given)
