"""The faults of the loop. Expected endings are values (`types.Outcome`); these are raised.

AgentError
├── DefinitionError      an Agent or tool is defined wrongly; raised at import of the module that defines it
├── ModelError           one attempt at a model call failed; says whether another attempt may succeed
├── BudgetError          a limit has no room for the reservation of a call
├── KilledError          a kill switch is on, so no call may be begun
├── UnknownPriceError    a model without a known price: refused before it is called
├── StaleAttemptError    another attempt owns the job now; whoever sees it must stop at once
├── ToolError            raised by a tool to tell the model, in words it can act on, what went wrong
└── Veto                 raised by a hook before a tool call: the call is not run
"""

from __future__ import annotations

from agent_core.outcomes import Refusal


class AgentError(Exception):
    """Base of every error that agent_core raises."""


class DefinitionError(AgentError):
    """An Agent or tool definition is wrong; the message names the field, what it holds and what is accepted."""


class ModelError(AgentError):
    """One attempt at a model call failed.

    `code` is stable (`rate_limited`, `overloaded`, `server_error`, `connection`, `early_end`, `invalid_request`,
    `authentication`, ...); `retryable` says whether the same call may succeed later; `retry_after` is in seconds.
    `billed` is False only where it is certain that the provider worked on nothing.
    """

    def __init__(
        self, code: str, message: str, *, retryable: bool, retry_after: float | None = None, billed: bool = True
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.retry_after = retry_after
        self.billed = billed


class BudgetError(AgentError):
    """The reservation does not fit into a scope's limit; nothing was reserved and no call was made."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


class KilledError(AgentError):
    """A kill switch is on: no model call is begun. `switch` is what it stops: `global`, `tenant:…` or `agent:…`."""

    def __init__(self, switch: str) -> None:
        super().__init__(f"the kill switch of {switch} is on")
        self.switch = switch


class UnknownPriceError(AgentError):
    """The model has no known price, so a budget could not be held."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"no price is known for model {model!r}, so its cost cannot be bounded; name a model that genai-prices "
            "knows, or set a price in USD for a million tokens: NIGHTSHIFT_PRICES names a JSON file of "
            f'{{"{model}": {{"input": 3, "output": 15}}}} for workers, Prices.from_json reads one in Python'
        )
        self.model = model


class StaleAttemptError(AgentError):
    """The job has been handed to another attempt; nothing this attempt writes is accepted any more."""


class ToolError(AgentError):
    """Raise it inside a tool to hand the model an error result.

    `code` is a short stable word, `retryable` tells the model whether the same call may work later, and the message
    reaches the model as it is: keep secrets out of it. Any other exception reaches the model by its class name alone.
    """

    def __init__(self, message: str, *, code: str = "tool_error", retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable


class Veto(AgentError):
    """Raise it in a hook before a tool call, with the reason: the call is not run, and the model reads the reason."""
