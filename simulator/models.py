"""The models that the server lists. It answers to any other name as well."""

from __future__ import annotations

from typing import Any

from simulator.errors import ApiError

NAMES = {
    "claude-opus-5-5": "Claude Opus 5.5",
    "claude-sonnet-5-5": "Claude Sonnet 5.5",
    "claude-haiku-5-5": "Claude Haiku 5.5",
    "claude-opus-5": "Claude Opus 5",
    "claude-sonnet-5": "Claude Sonnet 5",
    "claude-haiku-4-5": "Claude Haiku 4.5",
}

LEAST_CACHED = {"claude-sonnet-5": 1024, "claude-haiku-4-5": 4096}
"""Tokens that a prompt must have to be cached, where they are more than the 512 of the newest models."""


def least_cached(id_: str) -> int:
    """How many tokens a prompt must have to be cached."""
    return LEAST_CACHED.get(id_, 512)


def page() -> dict[str, Any]:
    """All models, as `GET /v1/models` lists them."""
    ids = list(NAMES)
    return {"data": [find(id_) for id_ in ids], "has_more": False, "first_id": ids[0], "last_id": ids[-1]}


def find(id_: str) -> dict[str, Any]:
    """One model. Raises ApiError with 404 for one that is not listed."""
    if id_ not in NAMES:
        raise ApiError(404, f"model: {id_}")
    return {
        "type": "model",
        "id": id_,
        "display_name": f"{NAMES[id_]} (simulated)",
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
    }
