"""Signatures of webhooks, as Standard Webhooks has them."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook

SECRET_BYTES = 32


def new_secret() -> str:
    """A fresh secret."""
    return secret_of(secrets.token_bytes(SECRET_BYTES))


def secret_of(raw: bytes) -> str:
    """A secret of these bytes as it is written."""
    return f"whsec_{base64.b64encode(raw).decode()}"


def signed_headers(message_id: str, body: str, signing: Sequence[str]) -> dict[str, str]:
    """The headers of a message that is sent now: its id, the time, and a signature by each of the secrets."""
    now = datetime.now(UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(message_id, now, body) for secret in signing),
    }
