"""The key of an embedded memory, which its owner and those that it is for read from its data directory."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

FILE = "api.key"


def ensure_key(data_dir: Path) -> str:
    """The key of a data directory, which is made with one when it has none; only its owner can read the file."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = data_dir / FILE
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32))
    return path.read_text(encoding="ascii").strip()
