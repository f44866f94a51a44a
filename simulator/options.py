"""What the server can be told when it starts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SimulatorOptions:
    """How the simulated model behaves unless a script says otherwise. Times are in seconds."""

    latency: float = 0.0
    """From the request to the first byte of the answer."""
    chunk_delay: float = 0.0
    """Between two pieces of a streamed answer."""
    chunks: int | None = None
    """Into how many pieces each text is cut; None cuts after every few words."""
    recorded_calls: int = 10_000
    """How many of the last calls `GET /_sim/calls` remembers."""
    max_body_bytes: int = 32_000_000
    """The size above which a request is refused with 413."""
