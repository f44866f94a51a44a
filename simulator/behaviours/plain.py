"""With no tools there is nothing to find out, so the answer says what was asked and that it is simulated."""

from __future__ import annotations

from typing import Any

from simulator.conversation import current_task, gist, remembered
from simulator.reply import Reply, answer

NOTE = "This is a simulated model: no real model answered, and nothing was billed."


def reply(body: dict[str, Any]) -> Reply:
    """A short answer that repeats the gist of the request, and what is remembered of the user."""
    asked = gist(current_task(body["messages"]).text)
    said = f"You wrote: “{asked}”." if asked else "The request held no text."
    known = gist(" ".join(remembered(body["messages"])))
    return answer(f"{NOTE} {said} I was reminded: {known}" if known else f"{NOTE} {said}")
