"""The platform's own processes, started from arguments alone: `python -m bench.roles api|worker|…`.

`noop-worker` is the worker with an executor that ends each job at once; `instant-worker` is the whole worker with a
model that answers at once from memory.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROLES = ("api", "bare-route", "worker", "noop-worker", "instant-worker")


def main() -> int:
    """Runs one role until SIGTERM; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.roles")
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key")
    parser.add_argument("--concurrency", type=int, default=200)
    parser.add_argument("--lease", type=int, default=15)
    parser.add_argument("--model-url")
    parser.add_argument("--qdrant-url")
    parser.add_argument("--qdrant-key-file", type=Path)
    args = parser.parse_args()
    common: dict[str, Any] = {"redis_url": args.redis_url, "data_dir": args.data_dir, "log_level": "warning"}
    if args.role == "api":
        return _api({**common, "host": "127.0.0.1", "port": args.port, "admin_key": args.key})
    if args.role == "bare-route":
        from bench.peers import bare_route

        bare_route.serve(args.redis_url, args.port)
        return 0
    common |= {"agents": ["bench.agents"], "concurrency": args.concurrency, "lease_seconds": args.lease}
    if args.qdrant_url:
        common |= {"qdrant_url": args.qdrant_url, "qdrant_api_key": args.qdrant_key_file.read_text("ascii")}
    common |= {"simulate": True, "model_base_url": args.model_url or "http://127.0.0.1:1"}
    return _worker(args.role, common)


def _api(values: dict[str, Any]) -> int:
    from api.main import serve
    from api.settings import Settings

    serve(Settings(**values))
    return 0


def _worker(role: str, values: dict[str, Any]) -> int:
    from bench import substitutes
    from worker import main, runtime
    from worker.settings import Settings

    with ExitStack() as patches:
        if role == "noop-worker":
            patches.enter_context(patch.object(runtime, "Executor", substitutes.NoopExecutor))
        if role == "instant-worker":
            patches.enter_context(patch.object(runtime, "make_model", substitutes.instant_model))
        return main.serve(Settings(**values))


if __name__ == "__main__":
    sys.exit(main())
