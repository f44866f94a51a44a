"""A platform of the tests' own making: answers that are written beforehand, and a clock that pauses move. And the check
of real answers against the types that the client gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, get_type_hints, is_typeddict
from unittest import mock

import httpx2
import typing_extensions
from pydantic import TypeAdapter

from nightshift_client import Client, clients, operations, transports

URL = "http://platform.test"
Answer = Callable[[httpx2.Request], httpx2.Response]


class Clock:
    """Stands in for `time`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@contextmanager
def client_of(answer: Answer, *, patience: float = 30.0) -> Iterator[tuple[Client, Clock]]:
    """A blocking client whose requests are answered by a function."""
    clock, transport = Clock(), httpx2.MockTransport(answer)
    with (
        mock.patch.object(operations, "time", clock),
        mock.patch.object(transports, "time", clock),
        mock.patch.object(clients, "_options", return_value={"base_url": URL, "transport": transport}),
        Client(URL, patience=patience) as client,
    ):
        yield client, clock


def check(shape: type, answers: list[Any]) -> None:
    """Raises pydantic's ValidationError for an answer that is not of the shape."""
    adapter: TypeAdapter[Any] = TypeAdapter(_readable(shape))
    for answer in answers:
        adapter.validate_python(answer, strict=True)


def _readable(shape: Any) -> Any:
    """A TypedDict as pydantic takes it before Python 3.12; anything else as it is."""
    if not is_typeddict(shape):
        return shape
    fields = {name: _readable(hint) for name, hint in get_type_hints(shape, include_extras=True).items()}
    return typing_extensions.TypedDict(shape.__name__, fields, total=shape.__total__)  # type: ignore[operator]
