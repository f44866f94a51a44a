"""The plain types that every package shares: budget, usage, the journal's entries and the outcomes of a run.

Money is integer micro-dollars (1 USD = 1,000,000) everywhere inside; `usd` turns it into the decimal string of the
public surface. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any, Literal

Json = dict[str, Any]
Effect = Literal["read", "write", "destructive"]
Verdict = Literal["happened", "not_happened"]
AtLimit = Literal["stop", "pause", "warn"]
Unit = Literal["usd", "tokens"]
Role = Literal["planner", "executor", "validator", "summariser", "router"]

MICROS = 1_000_000


def usd(micros: int) -> str:
    """The decimal string of an amount: `usd(12_300) == "0.0123"`."""
    sign, amount = ("-", -micros) if micros < 0 else ("", micros)
    whole, rest = divmod(amount, MICROS)
    return f"{sign}{whole}.{rest:06d}".rstrip("0").rstrip(".") if rest else f"{sign}{whole}"


def micros(amount: str | int | Decimal) -> int:
    """Micro-dollars of a decimal amount in US dollars, rounded half to even at the sixth place."""
    return int((Decimal(amount) * MICROS).to_integral_value(ROUND_HALF_EVEN))


def is_amount(value: object) -> bool:
    """Whether it is a decimal string of US dollars above 0."""
    try:
        amount = Decimal(value) if isinstance(value, str) else Decimal(0)
    except InvalidOperation:
        return False
    return amount.is_finite() and amount > 0


@dataclass(frozen=True, slots=True)
class Budget:
    """Hard limits of one job. None is no limit of that kind.

    `usd` is a decimal string in US dollars, `tokens` counts input and output together, `steps` counts model turns and
    `seconds` counts the time spent running (not queued or parked), over all attempts. Dollars and tokens include those
    of child jobs; at their limit the job stops, is paused until it is raised, or goes on with a warning (`at_limit`).
    """

    usd: str | None = "1.00"
    tokens: int | None = None
    steps: int | None = 25
    seconds: float | None = 3600
    at_limit: AtLimit = "stop"

    @property
    def micros(self) -> int | None:
        return None if self.usd is None else micros(self.usd)

    def override(self, changes: Mapping[str, Any]) -> Budget:
        """This budget with the given fields replaced."""
        return Budget(**{f.name: changes.get(f.name, getattr(self, f.name)) for f in fields(self)})

    def to_json(self) -> Json:
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(slots=True)
class Usage:
    """What a job has used so far. Token counts are the provider's; `cost` is in micro-dollars."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    cost: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens + self.cache_read_tokens + self.cache_write_tokens

    def count(self, raw: Mapping[str, Any] | None) -> None:
        """Adds one reply's usage as the Messages API reports it."""
        for name, key in USAGE_FIELDS:
            setattr(self, name, getattr(self, name) + int((raw or {}).get(key) or 0))


USAGE_FIELDS = (
    ("input_tokens", "input_tokens"),
    ("output_tokens", "output_tokens"),
    ("cache_read_tokens", "cache_read_input_tokens"),
    ("cache_write_tokens", "cache_creation_input_tokens"),
)
"""Our name of each token count, and the Messages API's."""
