"""Files of a job that the model itself can see: images and PDFs go into its first message."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from agent_core.types import Json

log = structlog.get_logger("worker")
IMAGES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp"}
MOST_FILES = 20
MOST_IMAGE_BYTES = 5_000_000
MOST_PDF_BYTES = 20_000_000
MOST_PDF_PAGES = 100
IMAGE_TOKENS = 5_000
"""More than any image costs: the API scales them down to at most 4,784 tokens."""
PAGE_TOKENS = 8_000
"""More than a page costs: its text, at most 3,000 tokens, and its image."""


@dataclass(slots=True)
class Attached:
    """Content blocks, and an upper bound of the tokens that they cost."""

    blocks: list[Json] = field(default_factory=list)
    tokens: int = 0


def attach(paths: Iterable[Path]) -> Attached:
    """What the model gets to see of the files. One that is too large, or not what its name says, is left to tools."""
    found = Attached()
    for path in paths:
        if len(found.blocks) == MOST_FILES:
            log.warning("no more files are shown to the model", most=MOST_FILES)
            break
        if path.suffix.lower() in IMAGES:
            _add_image(found, path)
        elif path.suffix.lower() == ".pdf":
            _add_pdf(found, path)
    return found


def _add_image(found: Attached, path: Path) -> None:
    if not 0 < path.stat().st_size <= MOST_IMAGE_BYTES:
        return
    found.blocks.append(_block("image", IMAGES[path.suffix.lower()], path.read_bytes()))
    found.tokens += IMAGE_TOKENS


def _add_pdf(found: Attached, path: Path) -> None:
    if not 0 < path.stat().st_size <= MOST_PDF_BYTES:
        return
    import pypdf  # slow to load, and few jobs have a PDF

    data = path.read_bytes()
    try:
        pages = len(pypdf.PdfReader(io.BytesIO(data)).pages)
    except Exception as exc:  # whatever a damaged file makes of a parser
        log.warning("a file is no PDF that can be read", name=path.name, error=type(exc).__name__)
        return
    if 0 < pages <= MOST_PDF_PAGES:
        found.blocks.append({**_block("document", "application/pdf", data), "title": path.name})
        found.tokens += pages * PAGE_TOKENS


def _block(kind: str, media_type: str, data: bytes) -> Json:
    source = {"type": "base64", "media_type": media_type, "data": base64.b64encode(data).decode()}
    return {"type": kind, "source": source}
