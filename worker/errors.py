"""What stops a worker from starting."""

from __future__ import annotations


class StartError(Exception):
    """The worker cannot start; the message is one line that says what is wrong and what to do."""
