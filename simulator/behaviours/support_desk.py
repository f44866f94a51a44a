"""Plays the agent of examples/support_desk: looks the order up, pays it back if the rules allow it, and asks a
colleague when they do not.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from simulator.behaviours.plain import NOTE
from simulator.conversation import Exchange, Task, current_task, gist, text_of
from simulator.reply import Reply, answer, call_tools

Json = dict[str, Any]

TOOLS = frozenset({"ask_human", "lookup_order", "refund"})
ORDER = re.compile(r"\b[A-Z]-\d{3,}\b")
WANTS_MONEY = re.compile(r"\b(money back|refund me|return|(send|give) \w+( \w+)? back)\b", re.IGNORECASE)
YES, NO = "yes, as an exception", "no"


def reply(body: Json) -> Reply | None:
    """The next step; None when the request is not of this agent."""
    if "tool_choice" in body or not TOOLS.issubset(tool["name"] for tool in body.get("tools") or []):
        return None
    task, order_id = current_task(body["messages"]), _order_id(body["messages"])
    if order_id is None:
        return answer(_signed("Gladly! Which order is it about? Its number looks like A-1042."))
    looked_up = task.of("lookup_order")
    if not looked_up:
        return call_tools("I look the order up.", ("lookup_order", {"order_id": order_id}))
    order = looked_up[-1].data()
    if order is None:
        return answer(_signed(f"I could not find the order {order_id}: {gist(looked_up[-1].text)}"))
    if refunds := task.of("refund"):
        return answer(_signed(_paid_back(order, refunds[-1])))
    return _wanted(task, order) if WANTS_MONEY.search(task.text) else answer(_signed(_status(order)))


def _order_id(messages: list[Json]) -> str | None:
    """The order that the newest message with one names, whoever wrote it."""
    named = (ORDER.findall(text_of(message)) for message in reversed(messages))
    return next((found[-1] for found in named if found), None)


def _wanted(task: Task, order: Json) -> Reply:
    left = Decimal(order["total"]) - Decimal(order["refunded"])
    if left <= 0:
        return answer(_signed(_status(order)))
    asked = task.of("ask_human")
    if not order["may_be_returned"] and not asked:
        question = (
            f"{order['customer']} would like to return the {order['item']} ({order['order_id']}, ${order['total']}), "
            f"but that was possible until {order['return_until']} only. Shall we take it back all the same?"
        )
        given = {"question": question, "choices": [YES, NO]}
        return call_tools("The rules do not cover this, so I ask a colleague.", ("ask_human", given))
    if asked and (asked[-1].is_error or not asked[-1].text.lower().startswith("y")):
        return answer(_signed(f"I am sorry: the {order['item']} could be returned until {order['return_until']} only."))
    given = {"order_id": order["order_id"], "amount": f"{left:.2f}", "reason": gist(task.text, 80)}
    return call_tools("I pay the money back.", ("refund", given))


def _paid_back(order: Json, refund: Exchange) -> str:
    done = refund.data()
    if done is None:
        return f"I could not pay back {order['order_id']}, the {order['item']}: {gist(refund.text)}"
    return f"I have paid back ${done['refunded']} for {order['order_id']}, the {order['item']}."


def _status(order: Json) -> str:
    text = f"{order['order_id']}, the {order['item']} for ${order['total']}, was delivered on {order['delivered']}."
    if Decimal(order["refunded"]) > 0:
        text += f" ${order['refunded']} of it have been paid back."
    return text


def _signed(text: str) -> str:
    return f"{text}\n\n{NOTE}"
