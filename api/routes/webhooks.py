"""Webhook endpoints: where events are told, and what became of telling them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from api import docs
from api.auth import Caller, WebhookWriter
from api.body import StrictRoute
from api.idempotency import derived, once, with_secret
from api.responses import json_response, page
from api.schemas import (
    ListedDelivery,
    Nothing,
    RedeliveryIn,
    Rotation,
    WebhookEndpointChange,
    WebhookEndpointIn,
)
from api.targets import check_target
from jobs.deliveries import Deliveries
from jobs.listing import list_deliveries
from jobs.signing import new_secret, secret_of
from jobs.webhooks import Endpoint, Webhooks, own

router = APIRouter(tags=["webhooks"], route_class=StrictRoute)
EndpointId = Annotated[str, Path(max_length=80, examples=["whk_018c2f0a1b2c3d4e5f60718293a4b5c6"])]
DeliveryId = Annotated[str, Path(max_length=100, examples=["dlv_018c2f0a1b2c3d4e5f60718293a4b5c6_1"])]


@router.post("/webhook_endpoints", status_code=201, response_model=None, responses=docs.ENDPOINT_MADE)
async def create_endpoint(request: Request, body: WebhookEndpointIn, caller: WebhookWriter) -> Response:
    """Makes an endpoint. Its `secret` is shown in this answer alone."""
    secret = _secret(request)

    async def create() -> Response:
        await _check(caller, body.url)
        made = await _webhooks(caller).create(caller.tenant, body.url, body.events, body.description, secret)
        return json_response(made.to_json(), 201, {"Location": f"/v1/webhook_endpoints/{made.id}"})

    return with_secret(await once(request, caller, create), secret)


@router.get("/webhook_endpoints", response_model=None, responses=docs.ENDPOINTS)
async def get_endpoints(caller: WebhookWriter) -> Response:
    """The tenant's endpoints, without their secrets, the oldest first."""
    return json_response(page([one.to_json() for one in await _webhooks(caller).all(caller.tenant)]))


@router.get("/webhook_endpoints/{endpoint_id}", response_model=None, responses=docs.ENDPOINT)
async def get_endpoint(endpoint_id: EndpointId, caller: WebhookWriter) -> Response:
    """An endpoint."""
    return json_response((await _endpoint(caller, endpoint_id)).to_json())


@router.patch("/webhook_endpoints/{endpoint_id}", response_model=None, responses=docs.ENDPOINT)
async def change_endpoint(endpoint_id: EndpointId, body: WebhookEndpointChange, caller: WebhookWriter) -> Response:
    """Changes what the body names. An endpoint that is enabled again is not told of what happened meanwhile."""
    changes = body.model_dump(exclude_unset=True)
    await _webhooks(caller).get(caller.tenant, own(endpoint_id))
    if "url" in changes:
        await _check(caller, changes["url"])
    return json_response((await _webhooks(caller).change(caller.tenant, endpoint_id, changes)).to_json())


@router.delete("/webhook_endpoints/{endpoint_id}", status_code=204, response_model=None, responses=docs.ENDPOINT_GONE)
async def delete_endpoint(endpoint_id: EndpointId, caller: WebhookWriter) -> Response:
    """Removes an endpoint. What was still to be delivered to it is dropped."""
    await _webhooks(caller).remove(caller.tenant, endpoint_id)
    return Response(status_code=204)


@router.post("/webhook_endpoints/{endpoint_id}/rotate_secret", response_model=None, responses=docs.ENDPOINT_ROTATED)
async def rotate_secret(
    request: Request, endpoint_id: EndpointId, caller: WebhookWriter, body: Rotation | None = None
) -> Response:
    """Makes a new secret, shown in this answer alone. The one before signs beside it, a day unless said otherwise."""
    secret, overlap = _secret(request), (body or Rotation()).overlap_seconds

    async def rotate() -> Response:
        endpoint = await _endpoint(caller, endpoint_id)
        await _webhooks(caller).rotate(endpoint, secret, overlap)
        return json_response(endpoint.to_json())

    return with_secret(await once(request, caller, rotate), secret)


@router.post(
    "/webhook_endpoints/{endpoint_id}/test", status_code=202, response_model=None, responses=docs.DELIVERY_MADE
)
async def send_test(
    request: Request, endpoint_id: EndpointId, caller: WebhookWriter, body: Nothing | None = None
) -> Response:
    """Sends a `webhook.test` to an endpoint; the delivery says what came of it."""

    async def send() -> Response:
        endpoint = await _webhooks(caller).get(caller.tenant, own(endpoint_id))
        return json_response((await _deliveries(caller).test(endpoint)).to_json(), 202)

    return await once(request, caller, send)


@router.get("/webhook_endpoints/{endpoint_id}/deliveries", response_model=None, responses=docs.DELIVERIES)
async def get_deliveries(
    endpoint_id: EndpointId,
    caller: WebhookWriter,
    status: ListedDelivery | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(max_length=200, description="The `next_cursor` of the page before.")] = None,
) -> Response:
    """An endpoint's deliveries, each with every try at it, the newest first."""
    endpoint = await _endpoint(caller, endpoint_id)
    link = caller.services.link
    found, cursor = await list_deliveries(link, endpoint, status=status, limit=limit, after=after)
    return json_response(page([delivery.to_json() for delivery in found], cursor))


@router.get("/webhook_endpoints/{endpoint_id}/deliveries/{delivery_id}", response_model=None, responses=docs.DELIVERY)
async def get_delivery(endpoint_id: EndpointId, delivery_id: DeliveryId, caller: WebhookWriter) -> Response:
    """A delivery, with every try at it."""
    return json_response((await _deliveries(caller).get(await _endpoint(caller, endpoint_id), delivery_id)).to_json())


@router.post(
    "/webhook_endpoints/{endpoint_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    response_model=None,
    responses=docs.DELIVERY_MADE,
)
async def redeliver_one(
    request: Request,
    endpoint_id: EndpointId,
    delivery_id: DeliveryId,
    caller: WebhookWriter,
    body: Nothing | None = None,
) -> Response:
    """Makes a delivery again, whatever became of it, with the same `webhook-id`."""

    async def redeliver() -> Response:
        endpoint = await _endpoint(caller, endpoint_id)
        return json_response((await _deliveries(caller).redeliver(endpoint, delivery_id)).to_json(), 202)

    return await once(request, caller, redeliver)


@router.post(
    "/webhook_endpoints/{endpoint_id}/redeliver", status_code=202, response_model=None, responses=docs.REDELIVERED
)
async def redeliver_since(
    request: Request, endpoint_id: EndpointId, body: RedeliveryIn, caller: WebhookWriter
) -> Response:
    """Makes all deliveries again that are of events since a time."""

    async def redeliver() -> Response:
        endpoint = await _endpoint(caller, endpoint_id)
        count = await _deliveries(caller).redeliver_since(endpoint, body.since, only_failed=body.only_failed)
        return json_response({"deliveries": count}, 202)

    return await once(request, caller, redeliver)


def _webhooks(caller: Caller) -> Webhooks:
    return Webhooks(caller.services.link)


def _deliveries(caller: Caller) -> Deliveries:
    return Deliveries(caller.services.link)


async def _endpoint(caller: Caller, endpoint_id: str) -> Endpoint:
    return await _webhooks(caller).get(caller.tenant, endpoint_id)


async def _check(caller: Caller, url: str) -> None:
    await check_target(url, allow_private=caller.services.settings.webhook_allow_private)


def _secret(request: Request) -> str:
    known = derived(request)
    return new_secret() if known is None else secret_of(known)
