"""The Lua scripts, loaded from `lua/`. Each file's header names its KEYS, ARGV and answers, and the preludes, if any,
whose functions it calls.
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent / "lua"
PRELUDE = re.compile(r"^-- prelude: (\w+)$", re.MULTILINE)


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
    for prelude in reversed(PRELUDE.findall(text)):
        text = f"{script(prelude).text}\n{text}"
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
