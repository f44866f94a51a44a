"""Budgets: limits on what a tenant, its users, sessions and agents may spend, and what is left of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from agent_core.types import micros
from api import docs
from api.auth import Admin, Reader
from api.body import StrictRoute
from api.responses import json_response, page
from api.schemas import LONGEST_SCOPE, ScopeBudgetIn
from jobs.budgets import Budgets, Period, ScopeBudget

router = APIRouter(tags=["money"], route_class=StrictRoute)


@router.put("/budgets", response_model=None, responses=docs.BUDGET)
async def put_budget(body: ScopeBudgetIn, caller: Admin) -> Response:
    """Sets the budget of a scope for a period, in the place of an earlier one. Jobs that it held go on."""
    caller.changes(body.scope)
    limit = None if body.usd is None else micros(body.usd)
    budget = ScopeBudget(body.scope, body.period, limit, body.tokens, body.at_limit)
    standing = await Budgets(caller.services.store).put(caller.tenant, budget)
    return json_response(standing.to_json())


@router.get("/budgets", response_model=None, responses=docs.BUDGETS)
async def get_budgets(caller: Reader) -> Response:
    """Every budget of the tenant, with what is spent, reserved and left in its current window."""
    standings = await Budgets(caller.services.store).all(caller.tenant)
    return json_response(page([standing.to_json() for standing in standings]))


@router.delete("/budgets", status_code=204, response_model=None, responses=docs.BUDGET_GONE)
async def delete_budget(
    caller: Admin,
    scope: Annotated[str, Query(max_length=LONGEST_SCOPE)],
    period: Period = "total",
) -> Response:
    """Lifts a budget. Jobs that it held go on."""
    caller.changes(scope)
    await Budgets(caller.services.store).remove(caller.tenant, scope, period)
    return Response(status_code=204)
