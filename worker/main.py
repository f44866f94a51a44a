"""The entry of a worker process."""

from __future__ import annotations

import asyncio
import sys

import redis
import uvloop

from agent_core.failpoints import arm
from agent_core.redaction import Redactor
from jobs.errors import UnavailableError
from jobs.folders import make_private
from jobs.logs import configure_logging
from worker.errors import StartError
from worker.runtime import run_worker
from worker.settings import Settings
from worker.threads import leave


def serve(settings: Settings) -> int:
    """Runs one worker until SIGTERM; returns the process's exit status: 0 after a drain, 2 when it could not start."""
    configure_logging(settings.log_format, settings.log_level, Redactor(settings.secrets))
    arm(settings.failpoints)
    try:
        own_data_dir(settings)
        uvloop.run(run_worker(settings))
    except asyncio.CancelledError:
        return leave(0)
    except StartError as exc:
        print(f"nightshift worker: {exc}", file=sys.stderr)  # noqa: T201
        return 2
    except (UnavailableError, redis.RedisError) as exc:
        print(f"nightshift worker: Redis at NIGHTSHIFT_REDIS_URL: {exc}", file=sys.stderr)  # noqa: T201
        return leave(3)
    return leave(0)


def own_data_dir(settings: Settings) -> None:
    """Makes the data directory, where jobs have their workspaces, for its owner alone. Raises StartError."""
    try:
        make_private(settings.data_dir)
    except OSError as exc:
        raise StartError(
            f"NIGHTSHIFT_DATA_DIR is {str(settings.data_dir)!r}: it cannot be made: {exc.strerror}"
        ) from exc
