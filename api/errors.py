"""The one place where errors become HTTP: every refusal is a problem document (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException as StarletteHTTPException

from agent_core.types import Json
from jobs.errors import (
    ConflictError,
    ForbiddenError,
    GoneError,
    IdempotencyError,
    InvalidError,
    JobsError,
    NotFoundError,
    StaleAttemptError,
    StoppedError,
    UnavailableError,
)

log = structlog.get_logger(__name__)

PROBLEM_JSON = "application/problem+json"
TYPE_PREFIX = "urn:nightshift:problem:"
STATUS_OF: dict[type[Exception], int] = {
    NotFoundError: 404,
    ForbiddenError: 403,
    GoneError: 410,
    ConflictError: 409,
    StaleAttemptError: 409,
    IdempotencyError: 422,
    InvalidError: 422,
    UnavailableError: 503,
    StoppedError: 503,
}
CODE_OF = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large", 500: "internal"}
RETRY_AFTER = "2"
RETRY_WHEN_STOPPED = "30"
"""A kill switch is turned off by a person."""
MOST_ERRORS = 20
LONGEST_FIELD = 200


class RefusedError(HTTPException):
    """A request that is refused for itself, before anything is looked up."""

    def __init__(self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)
        self.code = code


class FieldsError(InvalidError):
    """Fields that are wrong; `errors` names each."""

    code = "invalid_fields"

    def __init__(self, errors: list[Json]) -> None:
        first = errors[0]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(f"{first['field'] or 'the body'}: {first['message']}{more}")
        self.errors = errors

    @classmethod
    def of(cls, exc: ValidationError | RequestValidationError) -> FieldsError:
        """From pydantic's findings. Their inputs are left out: they may be secret, and huge."""
        found = exc.errors()[:MOST_ERRORS]
        return cls([_field_error(error) for error in found])


def problem(exc: Exception, request_id: str) -> Json:
    """The problem document of an error. An unexpected one says nothing of its cause."""
    status = status_of(exc)
    title = HTTPStatus(status).phrase
    code, detail = CODE_OF.get(status, "refused"), title
    if isinstance(exc, JobsError):
        code, detail = exc.code, str(exc)
    elif isinstance(exc, StaleAttemptError):
        code, detail = "conflict", str(exc)
    elif isinstance(exc, StarletteHTTPException):
        code, detail = getattr(exc, "code", code), str(exc.detail)
    elif status == 500:
        detail = "something went wrong on our side; the log has it under this request_id"
    return {
        "type": TYPE_PREFIX + code,
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        "errors": exc.errors if isinstance(exc, FieldsError) else [],
    }


def status_of(exc: Exception) -> int:
    """The HTTP status of an error."""
    if isinstance(exc, StarletteHTTPException):
        return exc.status_code
    return next((status for cls, status in STATUS_OF.items() if isinstance(exc, cls)), 500)


def problem_response(exc: Exception, request_id: str) -> Response:
    """The answer to a request that ended in an error."""
    document = problem(exc, request_id)
    headers = dict(getattr(exc, "headers", None) or {})
    if document["status"] == 503:
        headers.setdefault("Retry-After", RETRY_WHEN_STOPPED if isinstance(exc, StoppedError) else RETRY_AFTER)
    body = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, document["status"], headers, PROBLEM_JSON)


def request_id_of(request: Request) -> str:
    """The id that the outermost middleware gave the request."""
    return str(request.state.request_id)


def install(app: FastAPI) -> None:
    """Makes every error of the app a problem document."""

    async def expected(request: Request, exc: Exception) -> Response:
        return problem_response(exc, request_id_of(request))

    async def invalid(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, RequestValidationError)
        return problem_response(FieldsError.of(exc), request_id_of(request))

    for cls in (JobsError, StaleAttemptError, StarletteHTTPException):
        app.add_exception_handler(cls, expected)
    app.add_exception_handler(RequestValidationError, invalid)


def _field_error(error: ErrorDetails | Any) -> Json:
    place = [str(part) for part in error["loc"]]
    if place and place[0] in ("body", "query", "path", "header"):
        place = place[1:]
    return {"field": ".".join(place)[:LONGEST_FIELD], "message": str(error["msg"]).removeprefix("Value error, ")}
