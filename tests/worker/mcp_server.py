"""A small MCP server over standard input and output, told by files in a folder how to behave.

It speaks the protocol by itself, so that it starts at once and can do what no library would.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

ANSWERS = Path(sys.argv[1])
TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
NUMBER = {"type": "object", "properties": {"megabytes": {"type": "integer"}}}
NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
READS = {"readOnlyHint": True}


def tools() -> list[dict[str, Any]]:
    description = (ANSWERS / "description").read_text() if (ANSWERS / "description").exists() else "Says it again."
    found = [
        {"name": "echo", "description": description, "inputSchema": TEXT, "annotations": READS},
        {"name": "big", "description": "Says much.", "inputSchema": NUMBER, "annotations": READS},
        {"name": "hang", "description": "Says nothing.", "inputSchema": NOTHING, "annotations": READS},
        {"name": "die", "description": "Ends the server.", "inputSchema": NOTHING},
        {"name": "wipe", "description": "Wipes.", "inputSchema": NOTHING, "annotations": {"destructiveHint": True}},
        {"name": "odd.name", "description": "", "inputSchema": NOTHING},
        {"name": "secret", "description": "Tells a variable.", "inputSchema": TEXT},
    ]
    return found + [{"name": name, "inputSchema": NOTHING} for name in more()]


def more() -> list[str]:
    path = ANSWERS / "more"
    return path.read_text().split() if path.exists() else []


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def text(words: str, *, is_error: bool = False) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": words}], "isError": is_error}


def call(name: str, given: dict[str, Any]) -> dict[str, Any]:
    if name == "hang":
        (ANSWERS / "hanging").touch()
        sys.stdin.read()  # until the worker is gone
        os._exit(0)
    if name == "die":
        os._exit(1)
    if name == "big":
        return text("x" * (given["megabytes"] << 20))
    if name == "secret":
        return text(os.environ.get(given["text"], "nothing"))
    if name == "echo" and given["text"] == "fail":
        return text("there is no such thing", is_error=True)
    return text(given.get("text", name))


def answer(request: dict[str, Any]) -> dict[str, Any]:
    given = request.get("params") or {}
    match request["method"]:
        case "initialize":
            capabilities = {"tools": {"listChanged": True}}
            info = {"name": "small", "version": "1"}
            version = given["protocolVersion"]
            return {"result": {"protocolVersion": version, "capabilities": capabilities, "serverInfo": info}}
        case "tools/list":
            offered = tools()
            start = int(given.get("cursor") or 0)
            more = {"nextCursor": str(start + 3)} if start + 3 < len(offered) else {}
            return {"result": {"tools": offered[start : start + 3], **more}}
        case "tools/call":
            return {"result": call(given["name"], given.get("arguments") or {})}
        case _:
            return {"error": {"code": -32601, "message": "no such method"}}


print("a line that is no message", flush=True)
with (ANSWERS / "started").open("a") as started:
    started.write(f"{os.getpid()}\n")
for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        say({"id": request["id"], **answer(request)})
    if (ANSWERS / "tell").exists():
        (ANSWERS / "tell").unlink()
        say({"method": "notifications/tools/list_changed"})
