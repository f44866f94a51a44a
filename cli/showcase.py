"""What the demo can show: the agents of examples/, what each is asked, and the person whom it waits for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli import output
from cli.client import Client
from cli.invocation import command

Json = dict[str, Any]
FOLDER = Path(__file__).parent.parent / "examples"
ANSWER = "yes, as an exception"


@dataclass(frozen=True, slots=True)
class Example:
    """An agent in a folder of examples/ with the `questions` that it is asked, in one session if there are several.

    `file_question` is asked about a file of the user's own, in place of `files`. `database` is the variable that says
    where the agent's tools keep their data.
    """

    agent: str
    questions: tuple[str, ...]
    file_question: str = ""
    files: str = ""
    database: str = ""

    @property
    def source(self) -> Path:
        return FOLDER / self.agent / "agent.py"

    def own_files(self) -> list[Path]:
        """The files that come with it."""
        return sorted((FOLDER / self.agent).glob(self.files)) if self.files else []


ANALYST = Example(
    "analyst",
    ("Which licenses take up the most size_bytes in all, and which packages are the largest?",),
    file_question="What is in this file? Give the size, the most important totals and groups, and what stands out.",
)
EXAMPLES: Mapping[str, Example] = {
    example.agent: example
    for example in (
        ANALYST,
        Example(
            "code_fixer",
            ("The tests of this project fail. Mend the code.",),
            file_question="The tests of this project fail. Mend the code.",
            files="project/*.py",
        ),
        Example(
            "research",
            ("Why is the ferry Alma late so often, what would a repair cost, and is there money for it?",),
            file_question="What does this document say, and what does it leave open?",
            files="documents/*.md",
        ),
        Example(
            "support_desk",
            (
                "The standing desk of order A-1042 came with a broken leg. I want my money back.",
                "Thanks! How much was that again?",
                "The lamp of order A-0987 is too dim. It is late, I know, but may I still return it?",
            ),
            database="SUPPORT_DESK_DATABASE",
        ),
    )
}


async def decide(client: Client, event: Json) -> None:
    """Plays the person whom a job waits for: approves each call and answers each question, by the API, and says so."""
    if event["type"] != "approval.requested":
        return
    asked = event["data"]
    approval_id, given = asked["approval_id"], asked["input"]
    output.line("")
    if asked["kind"] == "question":
        answer = (given.get("choices") or [ANSWER])[0]
        output.line(f"PARKED, and no worker holds the job: it asks a person: {given['question']}")
        output.line(f"The demo answers {answer!r} by the API, as that person would with")
        output.line(f"  {command('approve')} {approval_id} --answer '{answer}'")
        body = {"decision": "approve", "answer": answer}
    else:
        output.line(f"PARKED, and no worker holds the job: may {asked['name']} run with {output.one_line(given, 200)}?")
        output.line("The demo approves it by the API, as a person would with")
        output.line(f"  {command('approve')} {approval_id}")
        body = {"decision": "approve"}
    output.line("")
    await client.post(f"/v1/approvals/{approval_id}/decide", body)
