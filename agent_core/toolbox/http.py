"""A tool that reads from the web, at the hosts that its agent allows."""

from __future__ import annotations

import hashlib
import mimetypes
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from agent_core.context import tool_context
from agent_core.egress import Egress, Reply
from agent_core.errors import DefinitionError, ToolError
from agent_core.tools import Tool, tool
from agent_core.types import Json

MOST_REDIRECTS = 5
PASSING = frozenset({408, 425, 429})
"""Answers besides those from 500 on after which the same request may succeed."""
TEXT = re.compile(r"text/.+|application/(json|xml|yaml|javascript|sql|x-ndjson)|.+\+(json|xml|yaml)")
CHARSET = re.compile(
    r"utf-?(8|16|32)|us-ascii|latin-?1|iso-8859-\d+|windows-12\d\d|shift_jis|euc-(jp|kr)|gb(k|2312|18030)|big5"
)
"""Encodings of the web: Python knows others that take far longer than the text is long."""
HEADERS = {"user-agent": "Nightshift", "accept": "text/*, application/json, */*;q=0.5"}


def http_get(allow: Sequence[str], *, egress: Egress | None = None) -> Tool:
    """A tool that gets a URL from the hosts of `allow`, like `api.example.com` or `*.example.com`, and no others.

    A text comes back as it is; anything else is kept as an artifact of the job. `egress` has other limits than the
    usual ones of time and size. Raises DefinitionError when no host is allowed.
    """
    if isinstance(allow, str) or not allow:
        raise DefinitionError(f"tool http_get: allow is {allow!r}; expected a list of hosts, like ['api.example.com']")
    way = replace(egress or Egress(), allow=tuple(allow))

    @tool(effect="read", timeout=way.seconds + 10.0, retries=2, name="http_get")
    async def get(url: Annotated[str, "http:// or https://, at one of the allowed hosts"]) -> str | Json:
        """Get a web page, a text or JSON by its URL."""
        reply = await way.send("GET", url, headers=HEADERS, redirects=MOST_REDIRECTS)
        if reply.status >= 400:
            passing = reply.status in PASSING or reply.status >= 500
            said = _text(reply)[:500] if _is_text(reply) else ""
            raise ToolError(f"the server answered {reply.status}: {said}", code="http_error", retryable=passing)
        if _is_text(reply):
            return _text(reply)
        kept = await tool_context().save_artifact(_artifact(reply), reply.body)
        return {"content_type": _kind(reply), "bytes": len(reply.body), "artifact": kept}

    return replace(get, description=f"{get.description} The allowed hosts are: {', '.join(allow)}.")


def _kind(reply: Reply) -> str:
    return reply.headers.get("content-type", "").partition(";")[0].strip().lower()


def _is_text(reply: Reply) -> bool:
    return TEXT.fullmatch(_kind(reply)) is not None


def _text(reply: Reply) -> str:
    found = re.search(r"charset\s*=\s*\"?([\w.-]+)", reply.headers.get("content-type", ""), re.IGNORECASE)
    charset = found[1].lower() if found else "utf-8"
    return reply.body.decode(charset if CHARSET.fullmatch(charset) else "utf-8", "replace")


def _artifact(reply: Reply) -> str:
    """A name for the job's file: the same on every attempt at the call."""
    digest = hashlib.sha256(tool_context().call_id.encode("utf-8", "replace")).hexdigest()[:16]
    return f"download-{digest}{mimetypes.guess_extension(_kind(reply)) or '.bin'}"
