"""`python -m bench [NAMES…] [--quick]`: measures, prints the table, and writes it to bench/results/."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

from bench.process import BenchError
from bench.report import Report, Section
from bench.stack import Stack

NAMES = (
    "reaction",
    "density",
    "overhead",
    "submit",
    "queue",
    "fairness",
    "ledger",
    "money",
    "takeover",
    "storage",
    "memory",
    "memory_cost",
)
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Runs the measurements that were asked for; 1 when one could not be made."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all when none is given")
    parser.add_argument("--quick", action="store_true", help="a tenth of the sizes")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where latest.md and latest.json go")
    args = parser.parse_args()
    unknown = set(args.names) - set(NAMES)
    if unknown:
        parser.error(f"there is no measurement {', '.join(sorted(unknown))}; there are: {', '.join(NAMES)}")
    failed = False
    with Stack() as stack:
        report = Report(args.quick, str(stack.db.info("server")["redis_version"]))
        for name in args.names or NAMES:
            begun = time.monotonic()
            try:
                report.sections.append(_measure(name, stack, 0.1 if args.quick else 1.0))
            except BenchError as exc:
                failed = True
                print(f"{name}: {exc}", file=sys.stderr)
            stack.reset()
            print(f"· {name}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    report.write(args.results)
    print(report.to_markdown())
    return int(failed)


def _measure(name: str, stack: Stack, scale: float) -> Section:
    section: Section = importlib.import_module(f"bench.measures.{name}").measure(stack, scale)
    return section


if __name__ == "__main__":
    sys.exit(main())
