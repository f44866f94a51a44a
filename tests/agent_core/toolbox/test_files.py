"""Files of the workspace: what may be read and written, and that nothing leads out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_core import ToolError
from agent_core.toolbox import files, list_files, read_file, workspace, write_file
from tests.agent_core.toolbox.web import call, error

SECRET = "the worker's own key"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A workspace with a secret beside it, and every kind of way to it that the file system has."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text(SECRET)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "a.txt").write_text("hello")
    (inside / "link.txt").symlink_to("../outside/secret.txt")
    (inside / "absolute").symlink_to(tmp_path / "outside")
    (inside / "up").symlink_to("..")
    (inside / "hop").symlink_to("up")
    (inside / "broken").symlink_to("nowhere")
    (inside / "loop").symlink_to("loop")
    (inside / "dir").mkdir()
    (inside / "dir" / "to").symlink_to("../../outside", target_is_directory=True)
    os.mkfifo(inside / "pipe")
    return inside


WAYS_OUT = [
    *("../outside/secret.txt", "/etc/passwd", "//etc/passwd", "dir/../../outside/secret.txt", "link.txt", "..", "/"),
    *("absolute/secret.txt", "up/outside/secret.txt", "hop/outside/secret.txt", "dir/to/secret.txt", "./../outside"),
    *("broken", "loop", "pipe", "absolute", "up", "dir/to", "link.txt/", "absolute/./secret.txt"),
]


@pytest.mark.parametrize("path", [*WAYS_OUT, "", ".", "dir", "a.txt\0", "a\nb", "x" * 2000, "a/" * 40 + "b", "\ud800"])
async def test_nothing_leads_out(place: Path, path: str) -> None:
    before = sorted(place.parent.rglob("*"))
    for result in (await call(read_file, place, path=path), await call(write_file, place, path=path, content="mine")):
        assert error(result)["code"] in ("bad_path", "not_found")
        assert SECRET not in result.content
    assert sorted(place.parent.rglob("*")) == before
    assert (place.parent / "outside" / "secret.txt").read_text() == SECRET


async def test_a_listing_shows_plain_files_and_follows_nothing(place: Path) -> None:
    await call(write_file, place, path="dir/deep/b.txt", content="ünï")
    assert json.loads((await call(list_files, place)).content) == {
        "files": [{"path": "a.txt", "bytes": 5}, {"path": "dir/deep/b.txt", "bytes": 5}],
        "truncated": False,
    }
    assert json.loads((await call(list_files, place, path="dir")).content)["files"][0]["path"] == "dir/deep/b.txt"
    for path in ("absolute", "up", "dir/to", "nowhere", "..", "/", "a.txt"):
        assert error(await call(list_files, place, path=path))["code"] in ("bad_path", "not_found")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from(["..", ".", "", "a.txt", "dir", "to", "up", "absolute", "link.txt", "secret.txt"])))
def test_no_path_at_all_leads_out(place: Path, parts: list[str]) -> None:
    try:
        data = workspace.read(place, "/".join(parts), 1_000)
    except ToolError:
        return
    assert data == b"hello"


def swapped_after(attack: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Has an attack happen right after the first directory on the way has been opened."""
    opens, real = iter(range(100)), os.open

    def slow_open(*args: Any, **options: Any) -> int:
        descriptor = real(*args, **options)
        if next(opens) == 1:
            attack()
        return descriptor

    monkeypatch.setattr(os, "open", slow_open)


def test_a_directory_that_becomes_a_symlink_meanwhile_leads_nowhere(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "box").mkdir()
    (place / "box" / "secret.txt").write_text("harmless")

    def swap() -> None:
        (place / "box").rename(place / "away")
        (place / "box").symlink_to("../outside")

    swapped_after(swap, monkeypatch)
    assert workspace.read(place, "box/secret.txt", 100) == b"harmless"


async def test_what_is_written_can_be_read(place: Path) -> None:
    result = await call(write_file, place, path="dir/new/report.md", content="# Ergebnis für alle")
    assert json.loads(result.content) == {"path": "dir/new/report.md", "bytes": 20}
    again = await call(write_file, place, path="dir/new/report.md", content="# Ergebnis für alle")
    assert again == result
    assert (await call(read_file, place, path="./dir//new/report.md")).content.endswith("19]\n# Ergebnis für alle")
    part = await call(read_file, place, path="dir/new/report.md", offset=2, length=8)
    assert part.content == "[characters 2 to 10 of 19]\nErgebnis"
    assert [name for name in os.listdir(place / "dir" / "new") if name != "report.md"] == []


async def test_a_write_that_fails_leaves_what_was_there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert error(await call(write_file, place, path="a.txt", content="new"))["code"] == "disk_full"
    assert (place / "a.txt").read_text() == "hello"
    assert not [name for name in os.listdir(place) if name.endswith(".part")]


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x00\x01", b"caf\xe9", b"plain\0text"])
async def test_binary_files_are_named_as_such(place: Path, data: bytes) -> None:
    (place / "picture").write_bytes(data)
    found = error(await call(read_file, place, path="picture"))
    assert (found["code"], found["message"]) == (
        "binary",
        f"'picture' is not text in UTF-8 but binary ({len(data)} bytes)",
    )


async def test_sizes_are_capped(place: Path) -> None:
    with (place / "big").open("wb") as file:
        file.truncate(files.MOST_READ_BYTES + 1)
    assert error(await call(read_file, place, path="big"))["message"] == (
        "big has 10,000,001 bytes; at most 10,000,000 can be read"
    )
    most = "x" * files.MOST_WRITTEN_BYTES
    assert error(await call(write_file, place, path="much", content=most + "x"))["code"] == "too_large"
    assert not (await call(write_file, place, path="much", content=most)).is_error


async def test_a_long_listing_is_cut(tmp_path: Path) -> None:
    for number in range(files.MOST_FILES + 1):
        (tmp_path / f"{number:05}").touch()
    content = (await call(list_files, tmp_path)).content
    assert content.endswith('"truncated": true}')
    assert content.count('"path"') == files.MOST_FILES


def test_how_the_platform_treats_them() -> None:
    assert (read_file.effect, list_files.effect) == ("read", "read")
    assert (write_file.effect, write_file.idempotent) == ("write", True)
