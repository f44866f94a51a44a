"""`nightshift doctor`: looks at every part and says what is wrong and what to do."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path

from cli import checks, output
from cli.checks import Check, Patient
from cli.errors import UsageError
from cli.settings import connection, data_dir, surroundings


def run(data_dir_option: Path | None, *, as_json: bool) -> int:
    """Prints the checks; the exit status: 0 when all is well, 1 when something is wrong."""
    found = asyncio.run(examine(data_dir_option))
    if as_json:
        output.print_json([asdict(check) for check in found])
    else:
        _print(found)
    return 0 if all(check.ok for check in found) else 1


async def examine(data_dir_option: Path | None) -> list[Check]:
    """Every check, in the order of dependence."""
    directory = data_dir(data_dir_option)
    found = [checks.python(), checks.data_directory(directory), checks.settings()]
    try:
        patient = Patient(directory, connection(data_dir_option), surroundings())
    except UsageError as exc:
        return [*found, Check("platform", False, "not checked", f"mend the settings first: {exc}")]
    found += [checks.redis_server(patient), checks.model(patient), checks.alerts(), await checks.sandbox()]
    found += await checks.redis(patient)
    found.append(await checks.memory(patient))
    found += await checks.platform(patient)
    return found


def _print(found: list[Check]) -> None:
    rows = [(c.check, ("warning" if c.fix else "ok") if c.ok else "WRONG", c.detail) for c in found]
    output.print_table(("check", "", "what there is"), rows)
    for check in filter(lambda check: check.fix, found):
        output.line(f"{check.check}: {check.fix}")
    if all(check.ok for check in found):
        output.line("All is well.")
