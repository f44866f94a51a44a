"""An agent that mends a small Python project: it plans, changes files, and is done when a validator has run the tests.

Code runs in the sandbox alone, which sees the job's files read-only. Where there is no sandbox, the agent goes by
reading, and says that nothing was run.
"""

from __future__ import annotations

from typing import Annotated

from agent_core import Agent, Budget, tool, tool_context
from agent_core.patterns import PlanExecuteValidate
from agent_core.sandbox import Sandbox
from agent_core.toolbox import list_files, read_file, search_files, workspace, write_file
from agent_core.toolbox.python import run_python
from agent_core.types import Json

MOST_BYTES = 1_000_000

RUN_TESTS = """\
import unittest
unittest.main(module=None, argv=["tests", "discover", "-s", "/input"])
"""

INSTRUCTIONS = f"""\
You mend a small Python project, whose files are those of the job. You work alone and unattended.

- The tests say what is right. Never change a test, and never write code that only pleases a test.
- Run the tests with run_python and exactly this program; they are right when its exit status is 0:
{RUN_TESTS}
- Change as little as mends the fault. write_file takes the whole new content of a file: read the file before.
- When you have changed files, keep them with deliver, all of them: what is not delivered is lost with the job.
- The final answer says in a few lines what was wrong, what you changed and how the tests ended. If the tests could \
not be run, as there is no sandbox, go by careful reading, and let the answer begin with THE TESTS WERE NOT RUN and \
why. A reviewer takes note of it and does not hold it against the work.
"""


@tool(effect="write", idempotent=True)  # a job keeps one file of a name, so delivering it again changes nothing
async def deliver(paths: Annotated[list[str], "the changed files, as list_files names them"]) -> Json:
    """Keep changed files of the workspace with the job, as they are now."""
    context = tool_context()
    kept = [await context.save_artifact(p, workspace.read(context.workspace, p, MOST_BYTES)) for p in paths]
    return {"delivered": [record["artifact"] for record in kept]}


code_fixer = Agent(
    name="code_fixer",
    description="Mends a small Python project until its tests pass.",
    instructions=INSTRUCTIONS,
    model="claude-sonnet-5-5",
    tools=[list_files, read_file, search_files, write_file, run_python(Sandbox(seconds=30)), deliver],
    pattern=PlanExecuteValidate(replans=2, validator_tools=True),
    max_tokens=8000,
    budget=Budget(usd="1.00", steps=40, seconds=900),
)
