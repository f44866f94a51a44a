"""arq with no-op jobs, all enqueued beforehand. Runs under the Python that has arq: `make bench` makes it."""

import argparse
import asyncio
import json
import resource
import time
from typing import Any

import uvloop
from arq import create_pool  # type: ignore[import-not-found]
from arq.connections import RedisSettings  # type: ignore[import-not-found]
from arq.worker import Worker  # type: ignore[import-not-found]


async def noop(context: dict[str, Any], job_id: str) -> None:
    """Does nothing, as the executor of our side does."""


async def measure(socket: str, jobs: int, concurrency: int) -> dict[str, float]:
    """Enqueues, then runs one worker in burst mode; seconds, and CPU seconds of the worker and of Redis."""
    settings = RedisSettings(unix_socket_path=socket)
    pool = await create_pool(settings)
    for first in range(0, jobs, 200):
        batch = range(first, min(first + 200, jobs))
        await asyncio.gather(*(pool.enqueue_job("noop", f"job_{number:030d}") for number in batch))
    worker = Worker([noop], redis_pool=pool, burst=True, max_jobs=concurrency, handle_signals=False, log_results=False)
    server = await _server_cpu(pool)
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    await worker.async_run()
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    if worker.jobs_complete != jobs:
        raise RuntimeError(f"arq completed {worker.jobs_complete} of {jobs} jobs")
    server = await _server_cpu(pool) - server
    await worker.close()
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"seconds": seconds, "cpu": cpu, "redis_cpu": server}


async def _server_cpu(pool: Any) -> float:
    info = await pool.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    args = parser.parse_args()
    print(json.dumps(uvloop.run(measure(args.socket, args.jobs, args.concurrency))))


if __name__ == "__main__":
    main()
