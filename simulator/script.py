"""Scripts: what the simulated model is to say, turn by turn, and which faults it is to have.

A script travels inside the conversation, so it needs no set-up and survives every restart of the server. Write it into
the user's message, on a line that starts with `#sim ` and goes on with JSON (which may run over several lines):

    #sim {"turns": [{"tool": "lookup", "input": {"id": 7}}, {"text": "It says: {{last_tool_result}}"}]}

The script of the newest user message that has one counts, and what others say in between changes nothing. The turn that
is played is the number of assistant messages after that message; when all turns were played, the answer is the text
"done", or a value of the JSON schema that is asked for. A summary in the script's own message that takes the place of
what was played says how many turns that were, on a line `- scripted turns played: 12`.

Script:
    turns        list of turns, see below; required
    latency      seconds before the first byte of every turn, 0 to 3600
    chunk_delay  seconds between two pieces of a stream
    chunks       into how many pieces each text is cut
    key          tells equal scripts apart when attempts at a faulty turn are counted

Turn: what it says (`text`, `tool` with `input`, or `tools`), and how:
    text         the answer's text; {{last_tool_result}} stands for the text of the newest tool result, {{facts}} for
                 all lines of the conversation that start with FACT
    tool, input  one tool call
    tools        several tool calls in one turn: [{"name": "…", "input": {…}}, …]
    stop_reason  instead of end_turn or tool_use: max_tokens, refusal, pause_turn, model_context_window_exceeded or
                 any other word
    usage        replaces token counts, e.g. {"output_tokens": 9}; null reports no usage at all
    latency, chunk_delay, chunks    as above, for this turn alone
    faults       list of faults: the first attempt at the turn has the first fault, the second the second, and so on;
                 the attempt after the last fault succeeds
    always       true starts over with the first fault after the last one, so that no attempt succeeds

Fault, exactly one of:
    {"status": 429, "retry_after": 1}      an HTTP error, with a retry-after header if you wish one
    {"drop": true}                         the connection is closed before the first byte
    {"hang": 30}                           silence for so many seconds, then the connection is closed; with "after": 0.5
                                           the silence begins after half of the stream's events
    {"cut": 0.5}                           the connection is closed abruptly after that share of the answer
    {"early_end": true}                    the stream ends cleanly, but before it says why it stopped
    {"error_event": "overloaded_error"}    an error event within the stream, halfway or at "after"
    {"malformed_tool_json": true}          the input of the tool call is not valid JSON
    {"result": "expired"}                  in a batch alone: the request's result is that, or `canceled`

Without streaming, `cut` ends the body early, `early_end` gives a message whose stop_reason is null, `error_event` is
the HTTP error of that type, and `malformed_tool_json` is a body that is not JSON. In a batch `early_end` is such a
message too, and every other fault but `result` an errored result.

Attempts are counted in the server's memory by script, turn and `key`; `DELETE /_sim/calls` forgets them. A script that
breaks these rules is answered with 400 and a message that names the field.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from simulator.conversation import text_of
from simulator.errors import ApiError

Json = dict[str, Any]
Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Chunks = Annotated[int, Field(ge=1, le=10_000)]

MARK = re.compile(r"^#sim[ \t]+", re.MULTILINE)
PLAYED = re.compile(r"^- scripted turns played: ([0-9]{1,9})$", re.MULTILINE)
FAULTS = ("status", "drop", "hang", "cut", "early_end", "error_event", "malformed_tool_json", "result")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Fault(_Part):
    """One failure of one attempt."""

    status: Annotated[int, Field(ge=400, le=599)] | None = None
    retry_after: Seconds | None = None
    drop: Literal[True] | None = None
    hang: Seconds | None = None
    cut: Share | None = None
    early_end: Literal[True] | None = None
    error_event: str | None = None
    malformed_tool_json: Literal[True] | None = None
    result: Literal["expired", "canceled"] | None = None
    after: Share | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Fault:
        kinds = [name for name in FAULTS if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError(f"a fault is exactly one of {', '.join(FAULTS)}")
        if self.retry_after is not None and self.status is None:
            raise ValueError("retry_after goes with status alone")
        if self.after is not None and kinds[0] not in ("hang", "error_event"):
            raise ValueError("after goes with hang and error_event alone")
        return self


class ToolCall(_Part):
    """A call that a turn makes."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]
    input: Json = {}


class Turn(_Part):
    """One reply of the model."""

    text: str | None = None
    tool: str | None = None
    input: Json | None = None
    tools: list[ToolCall] = []
    stop_reason: Annotated[str, Field(min_length=1)] | None = None
    usage: Json | None = None
    latency: Seconds | None = None
    chunk_delay: Seconds | None = None
    chunks: Chunks | None = None
    faults: list[Fault] = []
    always: bool = False

    @model_validator(mode="after")
    def _says_something(self) -> Turn:
        if self.tool is not None and self.tools:
            raise ValueError("give either tool or tools")
        if self.input is not None and self.tool is None:
            raise ValueError("input goes with tool")
        if not (self.text or self.calls or self.stop_reason or self.faults):
            raise ValueError("a turn needs text, tool or tools")
        if not self.calls and any(fault.malformed_tool_json for fault in self.faults):
            raise ValueError("malformed_tool_json needs a turn with a tool call")
        return self

    @property
    def calls(self) -> list[ToolCall]:
        """The turn's tool calls, however they were written."""
        return self.tools if self.tool is None else [ToolCall(name=self.tool, input=self.input or {})]

    @property
    def reports_usage(self) -> bool:
        return self.usage is not None or "usage" not in self.model_fields_set


class Script(_Part):
    """What one conversation's replies are."""

    turns: list[Turn]
    latency: Seconds | None = None
    chunk_delay: Seconds | None = None
    chunks: Chunks | None = None
    key: str = ""


def find_script(messages: list[Json]) -> tuple[Script, str, int] | None:
    """The script of the conversation, its text and the index of the turn to play; None when there is none.

    Raises ApiError with status 400 for a script that breaks the rules.
    """
    played = 0
    for message in reversed(messages):
        if message["role"] == "assistant":
            played += 1
        elif message["role"] == "user" and (text := text_of(message)) and (mark := MARK.search(text)):
            script, length = _parse(text[mark.end() :])
            source, after = text[mark.end() : mark.end() + length], text[mark.end() + length :]
            return script, source, played + sum(int(turns) for turns in PLAYED.findall(after)[-1:])
    return None


@functools.lru_cache(maxsize=1024)
def _parse(text: str) -> tuple[Script, int]:
    """The script that the text starts with, and how long it is."""
    try:
        found, length = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError) as exc:
        raise ApiError(400, f"#sim: what follows it is not JSON: {exc}") from exc
    try:
        return Script.model_validate(found), length
    except ValidationError as exc:
        raise ApiError(400, f"#sim: {_explain(exc)}") from exc


def _explain(exc: ValidationError) -> str:
    faults = exc.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, f['loc'])) or 'script'}: {f['msg']}" for f in faults)
