"""Model calls that can wait: those of many jobs go into one batch, and each is fetched when the batch has ended.

Nothing waits here for hours. A call comes back as soon as a batch has it; whoever runs the job looks whether the batch
has ended (`MessageBatches.status`) and then asks for the call again, by the batch's id.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

from agent_core.claude import ClaudeModel, MessageBatches, params_of, take_result
from agent_core.errors import ModelError
from agent_core.ports import Draft, Request
from agent_core.types import Json

GATHER_SECONDS = 1.0
"""How long a batch waits for further calls after its first."""
MOST_CALLS = 1000
MOST_BYTES = 32_000_000
"""Of one batch. The API takes 100,000 calls and 256 MB; a batch's results are held in memory by whoever fetches one."""
KEEP_SECONDS = 30.0
"""How long the results of a batch are kept for its other calls, which are asked for at about the same time."""
BATCH: Json = {"service_tier": "batch"}


@dataclass(slots=True)
class Gathering:
    """Calls on their way into one batch; `batch_id` gets its id, or why there is none."""

    batch_id: asyncio.Future[str]
    calls: dict[str, tuple[Json, Draft]] = field(default_factory=dict)
    size: int = 0
    sent: bool = False


class BatchModel:
    """A target by way of its Message Batches API, at half the price. One instance belongs to one event loop."""

    def __init__(self, model: ClaudeModel, gather_seconds: float = GATHER_SECONDS) -> None:
        self._model = model
        self._batches = MessageBatches(model.client)
        self._gather_seconds = gather_seconds
        self._gathering: Gathering | None = None
        self._fetches: dict[str, asyncio.Task[dict[str, Json] | None]] = {}
        self._sending: set[asyncio.Task[None]] = set()

    async def complete(self, request: Request, draft: Draft) -> None:
        """See `ports.Model.complete`. A new call returns once it is with a batch, and one that is with a batch returns
        without a reply while the batch has none, or does not tell.
        """
        if request.batch_id is None:
            await self._submit(request, draft)
        else:
            draft.batch_id = request.batch_id
            await self._collect(request.batch_id, request.call_id, draft)

    # ---- into a batch

    async def _submit(self, request: Request, draft: Draft) -> None:
        params = params_of(request)
        gathering = self._join(request.call_id, params, draft)
        try:
            draft.batch_id = await asyncio.shield(gathering.batch_id)
        except asyncio.CancelledError:
            if not gathering.sent:
                del gathering.calls[request.call_id]
            else:
                await self._learn(gathering, draft)
            raise

    def _join(self, call_id: str, params: Json, draft: Draft) -> Gathering:
        """Adds a call to the batch that is being gathered."""
        size = len(json.dumps(params))
        if self._gathering is not None and self._gathering.size + size > MOST_BYTES:
            self._send(self._gathering)
        gathering = self._gathering
        if gathering is None:
            loop = asyncio.get_running_loop()
            gathering = self._gathering = Gathering(loop.create_future())
            loop.call_later(self._gather_seconds, self._send, gathering)
        gathering.calls[call_id] = (params, draft)
        gathering.size += size
        draft.unsent = True
        if len(gathering.calls) >= MOST_CALLS:
            self._send(gathering)
        return gathering

    def _send(self, gathering: Gathering) -> None:
        if gathering.sent:
            return
        gathering.sent = True
        if self._gathering is gathering:
            self._gathering = None
        if gathering.calls:
            task = asyncio.get_running_loop().create_task(self._create(gathering))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _create(self, gathering: Gathering) -> None:
        for _, draft in gathering.calls.values():
            draft.unsent = False
        try:
            batch_id = await self._batches.create({call_id: params for call_id, (params, _) in gathering.calls.items()})
        except ModelError as exc:
            gathering.batch_id.set_exception(exc)
        else:
            gathering.batch_id.set_result(batch_id)

    async def _learn(self, gathering: Gathering, draft: Draft) -> None:
        """Waits for a batch that is being made, for a call that was cancelled meanwhile: it may have to be paid for."""
        await asyncio.wait([gathering.batch_id])
        if (fault := gathering.batch_id.exception()) is None:
            draft.batch_id = gathering.batch_id.result()
        else:
            draft.unsent = isinstance(fault, ModelError) and not fault.billed

    # ---- out of a batch

    async def _collect(self, batch_id: str, call_id: str, draft: Draft) -> None:
        try:
            results = await self._results(batch_id)
        except ModelError as exc:
            if exc.code != "not_found":
                return  # the batch has the reply all the same
            raise ModelError("batch_lost", f"there is no batch {batch_id} any more", retryable=True) from exc
        if results is None:
            return
        if call_id not in results:
            raise ModelError("batch_lost", f"the batch {batch_id} has no result of the call", retryable=True)
        take_result(draft, results[call_id])

    async def _results(self, batch_id: str) -> dict[str, Json] | None:
        """The results of a batch; None while it has none. Fetched once for all that ask."""
        fetch = self._fetches.get(batch_id)
        if fetch is None:
            fetch = self._fetches[batch_id] = asyncio.get_running_loop().create_task(self._fetch(batch_id))
        return await asyncio.shield(fetch)

    async def _fetch(self, batch_id: str) -> dict[str, Json] | None:
        keep = 0.0
        try:
            if not (await self._batches.status(batch_id)).ended:
                return None
            results = await self._batches.results(batch_id)
            keep = KEEP_SECONDS
            return results
        finally:
            asyncio.get_running_loop().call_later(keep, self._fetches.pop, batch_id, None)

    # ---- prices

    def price(self, model: str, usage: Json, extra: Json | None = None) -> int:
        return self._model.price(model, usage, {**(extra or {}), **BATCH})

    def worst_case(self, model: str, input_tokens: int, max_tokens: int, extra: Json | None = None) -> int:
        return self._model.worst_case(model, input_tokens, max_tokens, {**(extra or {}), **BATCH})

    def affordable(self, model: str, input_tokens: int, micros: int, extra: Json | None = None) -> int:
        return self._model.affordable(model, input_tokens, micros, {**(extra or {}), **BATCH})

    @property
    def price_version(self) -> str:
        return self._model.price_version
