"""Parts that stand in for the real ones where a measurement is about the rest."""

from __future__ import annotations

from agent_core.claude import ClaudeModel
from agent_core.errors import StaleAttemptError
from agent_core.ports import Draft, Request
from jobs.moves import Attempt
from worker.executor import Attempted, Executor
from worker.settings import Settings

USAGE = {"input_tokens": 100, "output_tokens": 20}


class NoopExecutor(Executor):
    """Completes a job as soon as it is claimed, with the record, journal entry, indexes and counters of any ending."""

    async def execute(self, attempted: Attempted) -> None:
        claim = attempted.claim
        if claim.job is None:
            raise ValueError(f"the record of {claim.job_id} cannot be read: {claim.damaged}")
        try:
            await self._store.move(
                claim.job,
                "complete",
                {"stop_reason": "end_turn", "output": ""},
                attempt=Attempt(claim.token, claim.queue),
                stop_reason="end_turn",
            )
        except StaleAttemptError:
            return
        self.ended["successful"] += 1


class InstantModel(ClaudeModel):
    """Answers from memory: the job's input says how many turns call the tool before the last one answers."""

    async def complete(self, request: Request, draft: Draft) -> None:
        turns = int(request.messages[0]["content"])
        done = sum(1 for message in request.messages if message["role"] == "assistant")
        draft.started, draft.usage = True, dict(USAGE)
        if done + 1 < turns:
            call = {
                "type": "tool_use",
                "id": f"toolu_{done}",
                "name": "lookup_order",
                "input": {"order_id": f"A-{done}"},
            }
            draft.content, draft.stop_reason = [call], "tool_use"
        else:
            draft.content, draft.stop_reason = [{"type": "text", "text": "It is shipped."}], "end_turn"


def instant_model(settings: Settings) -> ClaudeModel:
    """What `worker.runtime` makes instead of the client of a server."""
    return InstantModel.connect(api_key="none", base_url=settings.model_base_url)
