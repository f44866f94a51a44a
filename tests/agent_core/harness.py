"""What the tests of agent_core share: tools that log what they did, journals that fail, and ports around them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from agent_core import Agent, Budget, ModelError, Outcome, Tool, tool, tool_context
from agent_core.compaction import SECTIONS, SUMMARISE, SUMMARISE_SESSION
from agent_core.defaults import MemoryJournal, NoEvents, RefuseDestructive
from agent_core.entries import Entry, entry_from_json, entry_to_json
from agent_core.loop import Ports, run
from agent_core.ports import Approver, Draft, Events, Journal, Model, Request
from agent_core.state import State
from agent_core.testing import ScriptedModel, says
from agent_core.tools import ToolContext
from agent_core.turn import Backoff
from agent_core.types import Json

MODEL = "claude-sonnet-5-5"
TASK: Json = {"role": "user", "content": "go on"}
AT_ONCE = Backoff(base=0.0)


class Killed(Exception):
    """The process is gone."""


class MortalJournal(MemoryJournal):
    """Dies at its n-th record: before it is kept, or after it is kept and before anyone hears of it."""

    def __init__(self, dies_at: int, *, keeps_last: bool) -> None:
        super().__init__()
        self.dies_at = dies_at
        self.keeps_last = keeps_last

    async def record(self, *entries: Entry) -> None:
        if len(self.entries) + 1 >= self.dies_at:
            if self.keeps_last and len(self.entries) < self.dies_at:
                self.entries.extend(entries)
            raise Killed
        await super().record(*entries)


PLAYED = re.compile(r"turns played: (\d+)")


def summary_of(played: int, size: int = 0) -> str:
    """A sound summary, made `size` characters longer than it need be."""
    return "\n".join(f"{section}\n- turns played: {played}{'.' * size}" for section in SECTIONS)


class SummingModel(ScriptedModel):
    """A scripted model that sums a conversation up when it is asked to, and goes on with its script from there.

    It counts a token for four bytes. `asked` has the requests for a summary; the first of them get `odd` answers. After
    its script it says what fits the schema that is asked for.
    """

    def __init__(self, script: Sequence[Json | ModelError], odd: Sequence[Json | ModelError] = ()) -> None:
        super().__init__(script)
        self.odd = list(odd)
        self.asked: list[Request] = []

    async def complete(self, request: Request, draft: Draft) -> None:
        if texts(request.messages[-1:])[-1:] in ([SUMMARISE], [SUMMARISE_SESSION]):
            self.asked.append(request)
            reply = self.odd.pop(0) if self.odd else says(summary_of(self.turn(request)))
            if isinstance(reply, ModelError):
                raise reply
            draft.started, draft.content, draft.stop_reason = True, reply["content"], reply["stop_reason"]
            if draft.on_text is not None:
                draft.on_text(reply["content"][0]["text"])
        elif self.turn(request) < len(self.replies):
            await super().complete(request, draft)
        else:
            self.requests.append(request)
            draft.started, draft.stop_reason = True, "end_turn"
            draft.content = [{"type": "text", "text": obliging(request)}]
        draft.usage = {"input_tokens": len(json.dumps(request.messages)) // 4, "output_tokens": 20}

    def turn(self, request: Request) -> int:
        since = 0
        for message in reversed(request.messages):
            if message["role"] == "assistant":
                since += 1
            elif played := [found for text in texts([message]) for found in PLAYED.findall(text)]:
                return since + int(played[-1])
        return since


def texts(messages: list[Json]) -> list[str]:
    """All that is said in messages, without tool results."""
    blocks = (
        [m["content"]] if isinstance(m["content"], str) else [b["text"] for b in m["content"] if b["type"] == "text"]
        for m in messages
    )
    return [text for found in blocks for text in found]


def obliging(request: Request) -> str:
    """The most agreeable answer in the form that a request asks for."""
    schema = request.extra.get("output_config", {}).get("format", {}).get("schema")
    if schema is None:
        return "done"
    values = {"ok": True, "problems": [], "route": "short", "number": 1}
    return json.dumps({name: values[name] for name in schema["properties"]})


class Log:
    """Tools of every effect class, and which of their calls began."""

    def __init__(self) -> None:
        self.began: Counter[str] = Counter()

    @property
    def tools(self) -> list[Tool]:
        @tool(effect="read")
        async def look(at: int) -> Json:
            """Looks at something."""
            self.began[tool_context().call_id] += 1
            return {"seen": at}

        @tool(effect="write")
        async def change(to: int) -> str:
            """Changes something."""
            self.began[tool_context().call_id] += 1
            return f"changed to {to}"

        @tool(effect="write", idempotent=True)
        async def pay(amount: int) -> str:
            """Pays something."""
            self.began[tool_context().call_id] += 1
            return f"paid {amount}"

        @tool(effect="destructive")
        async def erase(what: int) -> str:
            """Erases something."""
            self.began[tool_context().call_id] += 1
            return f"erased {what}"

        return [look, change, pay, erase]


def make_agent(tools: Iterable[Tool] = (), **changes: Any) -> Agent:
    return Agent(**{"name": "tester", "instructions": "Be brief.", "model": MODEL, "tools": list(tools), **changes})


def make_ports(
    model: Model,
    journal: Journal | None = None,
    *,
    approver: Approver | None = None,
    events: Events | None = None,
    context: Callable[[str], ToolContext] | None = None,
    backoff: Backoff = AT_ONCE,
    **more: Any,
) -> Ports:
    return Ports(
        model=model,
        journal=journal or MemoryJournal(),
        approver=approver or RefuseDestructive(),
        events=events or NoEvents(),
        context=context or (lambda call_id: ToolContext("job_1", call_id, Path())),
        backoff=backoff,
        **more,
    )


async def play(agent: Agent, ports: Ports, state: State | None = None, budget: Budget | None = None) -> Outcome:
    """Runs an agent from a state, or from the first message."""
    return await run(state or State([TASK]), agent=agent, budget=budget or agent.budget, ports=ports)


def reread(entries: Iterable[Entry]) -> list[Entry]:
    """The entries as they come back from where they were kept as JSON."""
    texts = [(entry.TYPE, json.dumps(entry_to_json(entry))) for entry in entries]
    found = [entry_from_json(type_, json.loads(text)) for type_, text in texts]
    return [entry for entry in found if entry is not None]
