"""Where a model call may go: a model at a server that speaks the Messages API."""

from __future__ import annotations

import re
from dataclasses import dataclass

SERVER = re.compile(r"[a-z][a-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True)
class Target:
    """A model's id and the server to ask, by its name in the worker's settings; an empty name is the worker's own."""

    model: str
    server: str = ""

    @classmethod
    def parse(cls, text: str) -> Target:
        """The target of `model` or `model@server`. An `@` before a digit is part of the model's id, as in those that
        end in a date. Raises ValueError.
        """
        model, at, server = text.rpartition("@")
        if not at or server[:1].isdigit():
            model, at, server = text, "", ""
        if not model.strip() or (at and not SERVER.fullmatch(server)):
            raise ValueError(f"{text!r} is no target; expected a model's id, or model@server")
        return cls(model, server)

    @property
    def name(self) -> str:
        return f"{self.model}@{self.server}" if self.server else self.model
