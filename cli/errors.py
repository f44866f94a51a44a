"""How a command ends other than well. `main` prints the message as one line and exits with `exit_code`.

CliError                 1  the command could not do what it was asked
├── UsageError           2  wrong usage, or a request that the API refused
│   └── RefusedError     2  the API's answer was a problem (RFC 9457)
├── UnreachableError     3  the platform, or a part of it, does not answer
└── ChildError           2  (in `children`) a process of the platform refuses its settings, or
                         3  cannot be kept running
"""

from __future__ import annotations


class CliError(Exception):
    """The command failed; the message says why and what to do."""

    exit_code = 1


class UsageError(CliError):
    """The command cannot be carried out as it was given."""

    exit_code = 2


class RefusedError(UsageError):
    """The API refused the request. `code` is that of its problem+json body."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status = status
        self.code = code
        super().__init__(message)


class UnreachableError(CliError):
    """The platform does not answer."""

    exit_code = 3
