"""The Lua scripts, loaded from `lua/`. Each file's header names its KEYS, ARGV and answers."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent / "lua"


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the SHA-1 under which Redis caches it."""

    name: str
    text: str = field(repr=False)
    sha: str


@functools.cache
def script(name: str) -> Script:
    """The script of `lua/<name>.lua`."""
    text = (FOLDER / f"{name}.lua").read_text(encoding="utf-8")
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
