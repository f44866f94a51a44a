"""Whether a webhook may lead to a URL: checked here to tell of a mistake at once, and again whenever it is dialled."""

from __future__ import annotations

import asyncio

from agent_core.egress import Egress, EgressError
from jobs.errors import InvalidError

RESOLVE_SECONDS = 3.0


def check_url(url: str, *, allow_private: bool) -> None:
    """Raises InvalidError for a URL that is refused whatever its host resolves to."""
    try:
        Egress(allow_private=allow_private).check(url)
    except EgressError as exc:
        raise _refusal(exc) from None


async def check_target(url: str, *, allow_private: bool) -> None:
    """Raises InvalidError for a URL that is refused as it is, or for the addresses that its host has. A host that has
    none yet may get one.
    """
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            await Egress(allow_private=allow_private).addresses(url)
    except TimeoutError:
        return
    except EgressError as exc:
        if exc.code == "forbidden_target":
            raise _refusal(exc) from None


def _refusal(exc: EgressError) -> InvalidError:
    hint = "use a public address, or have NIGHTSHIFT_WEBHOOK_ALLOW_PRIVATE set for targets of your own network"
    return InvalidError(f"url: {exc}; {hint}", code="forbidden_target")
