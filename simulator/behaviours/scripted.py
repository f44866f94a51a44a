"""Plays a script: see `simulator.script` for its format."""

from __future__ import annotations

import hashlib
from typing import Any

from simulator.conversation import fact_lines, last_tool_result
from simulator.reply import Delivery, Reply, answer, text_block, tool_block
from simulator.script import Script, Turn

Json = dict[str, Any]

LAST_RESULT, FACTS = "{{last_tool_result}}", "{{facts}}"


def reply(body: Json, script: Script, source: str, played: int) -> Reply:
    """The reply of the turn that is due; "done" after the last one. `source` is the script as it was written."""
    if played >= len(script.turns):
        return _paced(answer("done"), script, played)
    turn = script.turns[played]
    content: list[Json] = []
    if turn.text:
        text = turn.text
        if LAST_RESULT in text:
            text = text.replace(LAST_RESULT, last_tool_result(body["messages"]))
        if FACTS in text:
            text = text.replace(FACTS, "\n".join(fact_lines(body["messages"])))
        content = [text_block(text)] if text else []
    content += [tool_block(call.name, call.input) for call in turn.calls]
    return Reply(
        content=content,
        stop_reason=turn.stop_reason or ("tool_use" if turn.calls else "end_turn"),
        usage=(turn.usage or {}) if turn.reports_usage else None,
        delivery=_delivery(script, turn, played, f"{source}\n{script.key}\n{played}"),
    )


def _paced(reply: Reply, script: Script, played: int) -> Reply:
    delivery = Delivery(script.latency, script.chunk_delay, script.chunks, script_key=script.key, turn=played)
    return Reply(reply.content, reply.stop_reason, delivery=delivery)


def _delivery(script: Script, turn: Turn, played: int, identity: str) -> Delivery:
    return Delivery(
        latency=script.latency if turn.latency is None else turn.latency,
        chunk_delay=script.chunk_delay if turn.chunk_delay is None else turn.chunk_delay,
        chunks=turn.chunks or script.chunks,
        faults=tuple(turn.faults),
        always=turn.always,
        attempts_key=hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest(),
        script_key=script.key,
        turn=played,
    )
