"""Telling a webhook of the platform from a request that anyone may have sent."""

from __future__ import annotations

from collections.abc import Mapping

from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook, WebhookVerificationError

from nightshift_client.errors import WebhookError
from nightshift_client.types import WebhookMessage


def verify_webhook(body: bytes | str, headers: Mapping[str, str], secret: str) -> WebhookMessage:
    """The message of a webhook. `body` is what was received, unparsed; `secret` the endpoint's `whsec_…`.

    The same message may come more than once, always with the same `webhook-id` header. Raises WebhookError for what is
    not signed with the secret, or not in the last five minutes; ValueError for a secret that is none.
    """
    try:
        webhook = Webhook(secret)
    except (EmptyWebhookSecretError, ValueError):
        raise ValueError("this is no webhook secret; expected one like whsec_…, as the endpoint was given it") from None
    try:
        message: WebhookMessage = webhook.verify(body, dict(headers))
    except (WebhookVerificationError, ValueError) as exc:  # ValueError: neither text nor base64 nor JSON
        raise WebhookError(f"this is no webhook signed with the secret: {exc}") from exc
    return message
