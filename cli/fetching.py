"""Saving a job's artifacts on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cli import output
from cli.client import Client, Json
from cli.errors import UsageError


async def save_all(client: Client, artifacts: Sequence[Json], folder: Path) -> None:
    """Saves the artifacts into `folder` under their names. Raises UsageError for a name that would lead elsewhere."""
    targets = [_target(folder, record["name"]) for record in artifacts]
    for record, target in zip(artifacts, targets, strict=True):
        size = await client.download(record["id"], target)
        output.say(f"saved {target} ({size:,} bytes)")


def _target(folder: Path, name: str) -> Path:
    if not name or name != Path(name).name or name in (".", "..") or "\0" in name:
        raise UsageError(f"{name!r} is no plain file name")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name
