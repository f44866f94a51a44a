"""A tool that tells other systems: signed webhooks, as Standard Webhooks has them, to targets that the agent names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated

from pydantic import SecretStr
from standardwebhooks import Webhook

from agent_core.context import tool_context
from agent_core.egress import Egress
from agent_core.errors import DefinitionError, ToolError
from agent_core.toolbox.http import PASSING
from agent_core.tools import Tool, tool
from agent_core.types import Json

MOST_BYTES = 256_000


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """Where a webhook goes, and the secret (`whsec_…`) that signs it. Neither is shown to a model or published."""

    url: SecretStr
    secret: SecretStr


def send_webhook(targets: Mapping[str, WebhookTarget], *, egress: Egress | None = None) -> Tool:
    """A tool that posts JSON to one of these targets, by its name; the URLs and secrets are no concern of the model.

    The `webhook-id` is the call's, on every attempt at it, so that the receiver can tell a repetition. Raises
    DefinitionError for a URL or a secret that cannot be used.
    """
    way = egress or Egress()
    if not targets:
        raise DefinitionError("tool send_webhook: targets is empty; expected at least one, by name")
    signers = {name: _signer(name, target, way) for name, target in targets.items()}
    names = ", ".join(sorted(targets))

    @tool(effect="write", idempotent=True, timeout=way.seconds + 10.0, retries=2, name="send_webhook")
    async def send(
        target: Annotated[str, "the name of the target"],
        event: Annotated[str, "what happened, like order.refunded"],
        data: Annotated[Json, "what there is to say of it"],
    ) -> Json:
        """Tell another system that something happened."""
        if target not in targets:
            raise ToolError(f"there is no target {target[:80]!r}; the targets are: {names}", code="not_found")
        now, call_id = datetime.now(UTC), tool_context().call_id
        body = json.dumps({"type": event, "data": data}, ensure_ascii=False, allow_nan=False)
        encoded = body.encode("utf-8", "replace")
        if len(encoded) > MOST_BYTES:
            message = f"the event has {len(encoded):,} bytes; at most {MOST_BYTES:,} are sent"
            raise ToolError(message, code="too_large")
        headers = {
            "content-type": "application/json",
            "webhook-id": call_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signers[target].sign(call_id, now, encoded.decode()),
        }
        reply = await way.send("POST", targets[target].url.get_secret_value(), headers=headers, content=encoded)
        if not 200 <= reply.status < 300:
            passing = reply.status in PASSING or reply.status >= 500
            raise ToolError(f"{target} answered {reply.status}", code="http_error", retryable=passing)
        return {"target": target, "status": reply.status}

    return replace(send, description=f"{send.description} The targets are: {names}.")


def _signer(name: str, target: WebhookTarget, way: Egress) -> Webhook:
    try:
        way.check(target.url.get_secret_value())
    except ToolError as exc:
        raise DefinitionError(f"tool send_webhook: the URL of {name!r} cannot be used: {exc}") from exc
    try:
        return Webhook(target.secret.get_secret_value())
    except Exception:
        message = f"tool send_webhook: the secret of {name!r} cannot be used; expected whsec_ and Base64"
        raise DefinitionError(message) from None
