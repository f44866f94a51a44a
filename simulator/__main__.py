"""`python -m simulator`: serves the simulated model and prints one line of JSON with its URL."""

from __future__ import annotations

import argparse
import json
import sys

from simulator.options import SimulatorOptions
from simulator.server import run


def main() -> None:
    """Parses the command line and serves until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(
        prog="python -m simulator", description="A simulated model behind the Messages API."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0, the default, takes a free one")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before the first byte of an answer")
    parser.add_argument("--chunk-delay", type=float, default=0.0, help="seconds between two pieces of a stream")
    given = parser.parse_args()
    options = SimulatorOptions(latency=given.latency, chunk_delay=given.chunk_delay)
    run(given.host, given.port, options, _announce)


def _announce(url: str) -> None:
    sys.stdout.write(json.dumps({"url": url}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
