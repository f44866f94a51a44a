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
    found += [checks.redis_server(patient), checks.model(patient), checks.alerts()]
    found += await checks.redis(patient)
    found += await checks.platform(patient)
    return found


def _print(found: list[Check]) -> None:
    marks = {True: "ok", False: "WRONG"}
    output.print_table(("check", "", "what there is"), [(c.check, marks[c.ok], c.detail) for c in found])
    wrong = [check for check in found if not check.ok]
    for check in wrong:
        output.line(f"{check.check}: {check.fix}")
    if not wrong:
        output.line("All is well.")
