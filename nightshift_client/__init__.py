"""The platform for Python programs: a blocking and an async client of its HTTP API, and the check of its webhooks."""

from nightshift_client.clients import AsyncClient, Client
from nightshift_client.errors import ApiError, ClientError, UnreachableError, WebhookError
from nightshift_client.webhooks import verify_webhook

__all__ = ["ApiError", "AsyncClient", "Client", "ClientError", "UnreachableError", "WebhookError", "verify_webhook"]
