"""Plays the agent of examples/code_fixer, whose project has two faults that it knows: it mends one after the other, as
the tests show them. That the validator's run of the tests finds the second one is the point of the example.
"""

from __future__ import annotations

import json
import re
from typing import Any

from simulator.behaviours.plain import NOTE
from simulator.conversation import Exchange, Task, current_task, gist
from simulator.reply import Reply, answer, call_tools

Json = dict[str, Any]

TOOLS = frozenset({"deliver", "list_files", "read_file", "run_python", "write_file"})
FAULTS = (
    # as it is, as it should be, what is wrong
    ("if cents > 10_000 else 0", "if cents >= 10_000 else 0", "the discount began above its limit, not at it"),
    (
        "    return [cents // people] * people\n",
        "    share, odd = divmod(cents, people)\n"
        "    return [share + (number < odd) for number in range(people)]\n",
        "the cents that do not divide evenly were lost",
    ),
)  # fmt: skip
TESTS = 'import unittest\nunittest.main(module=None, argv=["tests", "discover", "-s", "/input"])\n'
HEADER = re.compile(r"\A\[characters [^\n]*\]\n")
FAILED = re.compile(r"^(?:FAIL|ERROR): (\w+)", re.MULTILINE)
PLAN = (
    "1. Run the tests and read the files.\n2. Mend what a failing test shows, with the smallest change.\n3. Deliver it."
)


def reply(body: Json) -> Reply | None:
    """The next step of the planner, the executor or the validator; None when the request is not of this agent."""
    if not TOOLS.issubset(tool["name"] for tool in body.get("tools") or []):
        return None
    task = current_task(body["messages"])
    if "output_config" in body:
        return _validate(task)
    if "tool_choice" in body:
        return answer(PLAN) if "numbered plan" in task.text else None
    return _execute(task)


def _validate(task: Task) -> Reply:
    runs = task.of("run_python")
    if not runs:
        return call_tools("I run the tests myself.", ("run_python", {"code": TESTS}))
    problems = [f"the test {name} fails" for name in FAILED.findall(runs[0].text)]
    if not problems and not runs[0].is_error and not _passed(runs[0]):
        problems = [gist(runs[0].text)]
    return answer(json.dumps({"ok": not problems, "problems": problems}))


def _execute(task: Task) -> Reply:
    runs, listed = task.of("run_python"), task.of("list_files")
    if not runs or not listed:
        return call_tools("First the tests, and what there is.", ("run_python", {"code": TESTS}), ("list_files", {}))
    files = [file["path"] for file in (listed[0].data() or {}).get("files", []) if file["path"].endswith(".py")]
    if files and not task.of("read_file"):
        return call_tools("Now the code.", *(("read_file", {"path": path}) for path in files))
    changed = {e.input["path"]: e for e in task.of("write_file")}
    if not changed and (mended := _mended(task, all_at_once=runs[0].is_error)):
        writing = [("write_file", {"path": path, "content": content}) for path, content in mended.items()]
        return call_tools("I mend what the first failing test shows.", *writing)
    if changed and not task.of("deliver"):
        return call_tools("I keep what I changed.", ("deliver", {"paths": list(changed)}))
    return answer(_told(runs[0], changed))


def _mended(task: Task, *, all_at_once: bool) -> dict[str, str]:
    """New contents by their paths: with the first fault mended, or with all when there are no tests to go by."""
    mended: dict[str, str] = {}
    for path, content in ((e.input["path"], HEADER.sub("", e.text)) for e in task.of("read_file") if not e.is_error):
        for wrong, right, _ in FAULTS:
            if wrong in content and (all_at_once or not mended):
                content = mended[path] = content.replace(wrong, right)
    return mended


def _told(run: Exchange, changed: dict[str, Exchange]) -> str:
    """The final answer: what is mended by now, and how the tests stood when the work began."""
    lines = [
        f"- {path}: {what}." for path, e in changed.items() for _, right, what in FAULTS if right in e.input["content"]
    ]
    if run.is_error:
        lines.insert(0, f"THE TESTS WERE NOT RUN, this goes by reading alone: {gist(run.text)}\n")
    elif _passed(run) and not changed:
        lines.append("The tests pass; there is nothing to mend.")
    if not changed and not lines:
        lines.append("I know none of the faults here: a simulated model knows those of the example alone.")
    return "\n".join([*lines, "", NOTE])


def _passed(run: Exchange) -> bool:
    return not run.is_error and "exit status 0" in run.text.partition("\n")[0]
