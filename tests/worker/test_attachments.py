"""Images and PDFs among a job's files reach the model itself, at a bound that its reservation counts."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pypdf
import pytest

from agent_core.state import State
from agent_core.testing import ScriptedModel, says
from memory.session import SessionMemory, SessionScope
from tests.worker.conftest import TENANT, Bench
from worker.attachments import IMAGE_TOKENS, MOST_FILES, MOST_IMAGE_BYTES, PAGE_TOKENS, attach

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 100


def pdf(pages: int) -> bytes:
    writer, file = pypdf.PdfWriter(), io.BytesIO()
    for _ in range(pages):
        writer.add_blank_page(72, 72)
    writer.write(file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "kind", "tokens"),
    [
        ("a.png", PNG, "image", IMAGE_TOKENS),
        ("A.JPG", PNG, "image", IMAGE_TOKENS),
        ("a.pdf", pdf(3), "document", 3 * PAGE_TOKENS),
        ("a.pdf", b"%PDF-1.7 broken", None, 0),
        ("a.pdf", pdf(101), None, 0),
        ("a.png", b"", None, 0),
        ("a.png", b"0" * (MOST_IMAGE_BYTES + 1), None, 0),
        ("a.csv", b"a,b", None, 0),
    ],
)
def test_what_the_model_can_see_is_shown_to_it(tmp_path: Path, name: str, data: bytes, kind: Any, tokens: int) -> None:
    (tmp_path / name).write_bytes(data)
    found = attach([tmp_path / name])
    assert ([block["type"] for block in found.blocks], found.tokens) == ([kind] if kind else [], tokens)
    assert [base64.b64decode(block["source"]["data"]) for block in found.blocks] == ([data] if kind else [])


def test_there_is_an_end_to_what_is_shown(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(MOST_FILES + 1)]
    for path in paths:
        path.write_bytes(PNG)
    assert len(attach(paths).blocks) == MOST_FILES


def test_the_bound_counts_what_is_attached_and_not_its_bytes() -> None:
    bare, state = State([]), State([])
    bare.open("look", [], 0)
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 100_000}}
    state.open("look", [image], IMAGE_TOKENS)
    extra = state.input_bound("m", 0) - bare.input_bound("m", 0)
    assert IMAGE_TOKENS <= extra < IMAGE_TOKENS + 200


async def test_a_job_shows_its_image_on_every_attempt_and_its_session_keeps_a_word(bench: Bench) -> None:
    async def content() -> Any:
        yield PNG

    record = await bench.files.save(TENANT, "shot.png", content())
    job_id = await bench.submit(files=[record.id], session_id="s")
    model = ScriptedModel([says("a picture")])
    job = await bench.run(model)
    assert (job.id, job.status) == (job_id, "completed")
    first = model.requests[0].messages[0]["content"]
    assert [block["type"] for block in first] == ["image", "text"]
    assert "shot.png" in first[1]["text"]
    kept = await SessionMemory(bench.store.link).read(SessionScope(TENANT, "s"))
    assert kept.messages[0]["content"][0] == {"type": "text", "text": "[image]"}
