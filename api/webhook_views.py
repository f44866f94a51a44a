"""What the OpenAPI description says of webhooks: see `api.views`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class WebhookEndpointView(BaseModel):
    """Where events are told."""

    id: str
    object: Literal["webhook_endpoint"]
    url: str | None = Field(description="Null for `jobs`, which stands for the webhooks that submissions name.")
    events: list[str] | None
    description: str | None
    enabled: bool
    created_at: str | None
    disabled_at: str | None
    disabled_reason: Literal["gone", "failing", "by_request"] | None
    failing_since: str | None = Field(description="Since when every try has failed.")


class NewWebhookEndpoint(WebhookEndpointView):
    """An endpoint with a secret that was just made."""

    secret: str


class TryView(BaseModel):
    """One try at a delivery: the status that was answered, or why there was none."""

    at: str
    status: int | None
    error: str | None
    body: str | None = Field(description="The first 500 bytes of the answer.")
    seconds: float


class DeliveryView(BaseModel):
    """One event for one endpoint. Its id is the `webhook-id`."""

    id: str
    object: Literal["webhook_delivery"]
    endpoint_id: str
    job_id: str | None
    type: str
    sequence: int
    status: Literal["pending", "delivered", "failed", "dropped"]
    created_at: str
    next_try_at: str | None
    request: dict[str, Any] | None = Field(description="What is sent; null before the first try.")
    tries: list[TryView]


class RedeliveredView(BaseModel):
    """How many deliveries are made again."""

    deliveries: int
