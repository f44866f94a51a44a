"""What the tenant has used, the ledger of all its jobs, and the proof that the two agree."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from agent_core.types import Json
from api import docs
from api.auth import Admin, Reader
from api.query import KnownQueryRoute
from api.responses import dump, json_response, page
from api.schemas import Day, Word
from api.views import TenantLedgerRow
from jobs import cursors, usage
from jobs.audit import audit

PAGE = 200
MOST_IN_A_PAGE = 1000
PIECE = 1 << 16
COLUMNS = tuple(TenantLedgerRow.model_fields)
Rows = AsyncIterator[tuple[usage.Place, Json]]
From = Annotated[Day | None, Query(alias="from", description="The first day, like 2026-11-01.")]
To = Annotated[Day | None, Query(alias="to", description="The last day, itself included.")]

router = APIRouter(tags=["money"], route_class=KnownQueryRoute)


@router.get("/usage", response_model=None, responses=docs.USAGE)
async def get_usage(
    caller: Reader,
    by: Annotated[list[str] | None, Query(description="day, agent, user, model, role; several by commas.")] = None,
    first: From = None,
    last: To = None,
    agent: Annotated[Word | None, Query()] = None,
    user: Annotated[Word | None, Query()] = None,
    model: Annotated[Word | None, Query()] = None,
) -> Response:
    """Calls, tokens and cost of some days, added up for each value of what `by` names; by day when it names nothing."""
    link = caller.services.link
    days = await usage.days_between(link, first, last)
    dimensions = list(dict.fromkeys(name for words in by or ["day"] for name in words.split(",")))
    only = {"agent": agent, "user": user, "model": model}
    given = {name: value for name, value in only.items() if value is not None}
    return json_response(page(await usage.usage(link, caller.tenant, days, dimensions, given)))


@router.get("/usage/check", response_model=None, responses=docs.AUDIT)
async def check_usage(caller: Admin) -> Response:
    """Makes every total of the tenant again from the rows of its ledger, and says where they differ."""
    return json_response((await audit(caller.services.link, caller.tenant)).to_json())


@router.get("/ledger", response_model=None, responses=docs.TENANT_LEDGER)
async def get_tenant_ledger(
    caller: Reader,
    first: From = None,
    last: To = None,
    output: Annotated[Literal["json", "jsonl", "csv"], Query(alias="format")] = "json",
    limit: Annotated[
        int | None, Query(ge=1, le=MOST_IN_A_PAGE, description="Of a page; jsonl and csv have all.")
    ] = None,
    after: Annotated[str | None, Query(max_length=200, description="The `next_cursor` of the page before.")] = None,
) -> Response:
    """The settled rows of all jobs that are kept, day by day: pages of JSON, or all of them as JSON lines or CSV."""
    link, name = caller.services.link, f"ledger:{caller.tenant}"
    days = await usage.days_between(link, first, last)
    start = usage.parse_place(await cursors.read(link, name, after)) if after else None
    rows = usage.ledger(caller.services.store, caller.tenant, days, start)
    match output:
        case "json":
            shown, place = await _page(rows, limit or PAGE)
            return json_response(page(shown, place and await cursors.sign(link, name, place.text())))
        case "jsonl":
            return StreamingResponse(_stream(rows, "", _json_line), media_type="application/jsonl")
        case "csv":
            return StreamingResponse(_stream(rows, _csv_line(COLUMNS), _csv_row), media_type="text/csv")


async def _page(rows: Rows, limit: int) -> tuple[list[Json], usage.Place | None]:
    """Up to `limit` rows, and the place of the last one when there are more."""
    shown: list[Json] = []
    last = None
    async for place, row in rows:
        if len(shown) == limit:
            return shown, last
        shown.append(row)
        last = place
    return shown, None


async def _stream(rows: Rows, text: str, render: Callable[[Json], str]) -> AsyncIterator[str]:
    """The rows as text, in pieces. A fault breaks the connection off, so that no part passes for the whole."""
    async for _, row in rows:
        text += render(row)
        if len(text) >= PIECE:
            yield text
            text = ""
    yield text


def _json_line(row: Json) -> str:
    return dump(row).decode() + "\n"


def _csv_row(row: Json) -> str:
    usage_text = "" if row["usage"] is None else dump(row["usage"]).decode()
    return _csv_line([{**row, "usage": usage_text}[name] for name in COLUMNS])


def _csv_line(cells: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()
