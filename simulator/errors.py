"""The one error of this package, in the shape in which the Messages API reports errors."""

from __future__ import annotations

from typing import Any

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
STATUSES = {type_: status for status, type_ in TYPES.items()} | {"api_error": 500}


def type_of(status: int) -> str:
    """The error type that goes with an HTTP status."""
    return TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")


def error_body(type_: str, message: str, request_id: str | None = None) -> dict[str, Any]:
    """An error as the Messages API writes it, in an answer's body or in a stream's `error` event."""
    body: dict[str, Any] = {"type": "error", "error": {"type": type_, "message": message}}
    return body if request_id is None else {**body, "request_id": request_id}


class ApiError(Exception):
    """The request is answered with an error: `status`, `message`, and seconds of `retry_after` if there are any."""

    def __init__(self, status: int, message: str, *, type_: str | None = None, retry_after: float | None = None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type_ or type_of(status)
        self.retry_after = retry_after
