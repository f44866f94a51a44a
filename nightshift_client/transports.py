"""The two ways to carry a flow out, and the methods that are bound to either."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import aclosing, closing
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

import httpx2

from nightshift_client.flows import Emit, Feed, Flow, Pause, Read, Send, Step, advance, emitted

P = ParamSpec("P")
T = TypeVar("T")


class Blocking:
    """Carries flows out on the caller's thread."""

    http: httpx2.Client

    def _run(self, flow: Flow[T]) -> T:
        """The result of a flow."""
        with closing(self._iterate(emitted(flow))) as items:
            return next(items)

    def _iterate(self, feed: Feed[T]) -> Generator[T, None, None]:
        """The items of a flow; closing it ends the request that is under way."""
        with closing(_Wire(self.http)) as wire:
            step = advance(feed, None)
            while step is not None:
                outcome = None
                if isinstance(step, Emit):
                    yield step.item
                else:
                    try:
                        outcome = wire.take(step)
                    except httpx2.TransportError as exc:
                        outcome = exc
                step = advance(feed, outcome)


class Awaiting:
    """Carries flows out on asyncio's event loop."""

    http: httpx2.AsyncClient

    async def _run(self, flow: Flow[T]) -> T:
        """The result of a flow."""
        async with aclosing(self._iterate(emitted(flow))) as items:
            return await anext(items)

    async def _iterate(self, feed: Feed[T]) -> AsyncGenerator[T, None]:
        """The items of a flow; closing it ends the request that is under way."""
        async with aclosing(_AsyncWire(self.http)) as wire:
            step = advance(feed, None)
            while step is not None:
                outcome = None
                if isinstance(step, Emit):
                    yield step.item
                else:
                    try:
                        outcome = await wire.take(step)
                    except httpx2.TransportError as exc:
                        outcome = exc
                step = advance(feed, outcome)


class _Wire:
    """The connection of one flow; what is streamed on it ends with the next request."""

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http
        self._response: httpx2.Response | None = None
        self._pieces: Iterator[Any] = iter(())

    def take(self, step: Step) -> Any:
        match step:
            case Pause(seconds):
                time.sleep(seconds)
            case Read():
                return next(self._pieces, None)
            case Send(stream=stream):
                self.close()
                self._response = response = self._http.send(step.build(self._http), stream=True)
                if stream is None or not response.is_success:
                    response.read()
                else:
                    events = httpx2.EventSource(response, max_event_size=None)
                    self._pieces = iter(events) if stream == "events" else response.iter_bytes()
                return response

    def close(self) -> None:
        if self._response is not None:
            self._response.close()


class _AsyncWire:
    """The connection of one flow; what is streamed on it ends with the next request."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http
        self._response: httpx2.Response | None = None
        self._pieces: AsyncIterator[Any]

    async def take(self, step: Step) -> Any:
        match step:
            case Pause(seconds):
                await asyncio.sleep(seconds)
            case Read():
                return await anext(self._pieces, None)
            case Send(stream=stream):
                await self.aclose()
                self._response = response = await self._http.send(step.build(self._http), stream=True)
                if stream is None or not response.is_success:
                    await response.aread()
                else:
                    events = httpx2.EventSource(response, max_event_size=None)
                    self._pieces = aiter(events) if stream == "events" else response.aiter_bytes()
                return response

    async def aclose(self) -> None:
        if self._response is not None:
            await self._response.aclose()


class _Operation:
    """A method that is written as a flow."""

    def __init__(self, flow: Callable[..., Any]) -> None:
        self._flow = flow
        self.__doc__ = flow.__doc__

    def _bound(self, client: Blocking | Awaiting, carry_out: Callable[[Any], Any]) -> Callable[..., Any]:
        @functools.wraps(self._flow)
        def method(*args: Any, **kwargs: Any) -> Any:
            return carry_out(self._flow(client, *args, **kwargs))

        return method


class one(_Operation, Generic[P, T]):
    """Makes a method of a flow: it returns the result, or an awaitable of it."""

    def __init__(self, flow: Callable[Concatenate[Any, P], Flow[T]]) -> None:
        super().__init__(flow)

    @overload
    def __get__(self, client: None, owner: object) -> Self: ...
    @overload
    def __get__(self, client: Blocking, owner: object) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: Awaiting, owner: object) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, client: Blocking | Awaiting | None, owner: object) -> Any:
        return self if client is None else self._bound(client, client._run)


class each(_Operation, Generic[P, T]):
    """Makes a method of a flow: it returns a generator of the items, or an async generator of them."""

    def __init__(self, flow: Callable[Concatenate[Any, P], Feed[T]]) -> None:
        super().__init__(flow)

    @overload
    def __get__(self, client: None, owner: object) -> Self: ...
    @overload
    def __get__(self, client: Blocking, owner: object) -> Callable[P, Generator[T, None, None]]: ...
    @overload
    def __get__(self, client: Awaiting, owner: object) -> Callable[P, AsyncGenerator[T, None]]: ...
    def __get__(self, client: Blocking | Awaiting | None, owner: object) -> Any:
        return self if client is None else self._bound(client, client._iterate)
