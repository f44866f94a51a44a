"""How answers are written: JSON in one pass, without validating what our own code made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Response

from agent_core.types import Json
from jobs.records import Job

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
REPLAYED = {"Idempotency-Replayed": "true"}


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(dump(value), status, headers, "application/json")


def dump(value: Any) -> bytes:
    """JSON on one line. What an agent said may hold anything; half a surrogate pair becomes a question mark."""
    return _ENCODER.encode(value).encode("utf-8", "replace")


def page(data: Sequence[Any], next_cursor: str | None = None) -> Json:
    """A list as every list is answered; there is more when there is a cursor."""
    return {"data": data, "has_more": next_cursor is not None, "next_cursor": next_cursor}


def job_response(job: Job, status: int = 200, *, replayed: bool = False) -> Response:
    """A job; with where it is found when it was just submitted."""
    headers = {"Location": f"/v1/jobs/{job.id}"} if status in (201, 202) else {}
    return json_response(job.to_json(), status, headers | REPLAYED if replayed else headers)
