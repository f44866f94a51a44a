"""How the user called us, so that what we tell them to type works where they stand."""

from __future__ import annotations

import shlex
import shutil
import sys

from cli.settings import search_path

NAME = "nightshift"


def command(words: str = "") -> str:
    """A command line of ours: by name when that is on PATH, else by the path that the user typed."""
    return f"{_program()} {words}".rstrip()


def _program() -> str:
    typed = sys.argv[0]
    if not typed.endswith(f"/{NAME}") or shutil.which(NAME, path=search_path()) == typed:
        return NAME
    return shlex.quote(typed)
