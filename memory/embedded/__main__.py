"""`python -m memory.embedded`: serves the embedded memory and prints one line of JSON: its URL, its key's file."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from memory.embedded.server import run


def main() -> None:
    """Parses the command line and serves until SIGTERM or SIGINT; ends with 1 when it cannot begin."""
    parser = argparse.ArgumentParser(
        prog="python -m memory.embedded", description="Long-term memory on this machine, behind Qdrant's REST API."
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="where the collections are kept")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0, the default, takes a free one")
    given = parser.parse_args()
    try:
        run(given.data_dir, given.host, given.port, _announce)
    except BlockingIOError:
        sys.exit(f"{given.data_dir} belongs to an embedded memory that runs; stop that one or name another --data-dir")
    except OSError as exc:
        sys.exit(f"cannot serve on {given.host}:{given.port}: {exc}; name another --port")


def _announce(url: str, key_file: Path) -> None:
    sys.stdout.write(json.dumps({"url": url, "api_key_file": str(key_file)}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
