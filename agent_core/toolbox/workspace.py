"""A job's workspace as tools see it: plain files under one directory, and no way out of it.

A path is walked part by part from the directory's descriptor and no part may be a symlink, so that nothing that changes
meanwhile leads elsewhere either.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from agent_core.errors import ToolError

LONGEST_PATH, DEEPEST = 1024, 32
"""Bytes and names of a path."""
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # opening a pipe must not wait for its writer
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
FAULTS = {
    errno.ENOENT: ("not_found", "there is no such file or directory in the workspace; list_files shows what there is"),
    errno.ELOOP: ("bad_path", "it is a symlink, and none is followed"),
    errno.ENOTDIR: ("bad_path", "a part of the path is a file or a symlink, where a directory was expected"),
    errno.EISDIR: ("bad_path", "it is a directory, where a file was expected"),
    errno.ENAMETOOLONG: ("bad_path", "a name in the path is too long"),
    errno.ENOSPC: ("disk_full", "there is no room left on the disk"),
    errno.EDQUOT: ("disk_full", "there is no room left on the disk"),
}


@dataclass(frozen=True, slots=True)
class Found:
    """A file of the workspace."""

    path: str
    bytes: int


def parts_of(path: str) -> list[str]:
    """The names along a path, none for the workspace itself. Raises ToolError for one that could lead out of it."""
    names = [name for name in path.split("/") if name not in ("", ".")]
    if path.startswith("/") or ".." in names:
        raise ToolError(f"{path!r} is refused: give a path within the workspace, without '..'", code="bad_path")
    plain = path.isprintable() and len(path.encode()) <= LONGEST_PATH
    if not plain or len(names) > DEEPEST:
        limits = f"{LONGEST_PATH} bytes and {DEEPEST} names at most, and no control characters"
        raise ToolError(f"the path is refused: it may have {limits}", code="bad_path")
    return names


@contextlib.contextmanager
def directory(root: Path, names: list[str], *, make: bool = False) -> Iterator[int]:
    """The descriptor of a directory of the workspace. Raises OSError, for a symlink on the way too."""
    opened = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=opened)
            inner = os.open(name, DIRECTORY, dir_fd=opened)
            os.close(opened)
            opened = inner
        yield opened
    finally:
        os.close(opened)


@contextlib.contextmanager
def opened(root: Path, path: str) -> Iterator[BinaryIO]:
    """A plain file of the workspace, to be read. Raises ToolError."""
    names = parts_of(path)
    if not names:
        raise ToolError("the path is empty; name a file", code="bad_path")
    with explained(path), directory(root, names[:-1]) as parent:
        descriptor = os.open(names[-1], FILE, dir_fd=parent)
    try:
        _check_plain(path, os.fstat(descriptor))
        with open(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def read(root: Path, path: str, most: int) -> bytes:
    """The content of a plain file. Raises ToolError, for one of more than `most` bytes too."""
    with opened(root, path) as file:
        data = file.read(most + 1)
        size = max(os.fstat(file.fileno()).st_size, len(data))
    if len(data) > most:
        raise ToolError(f"{path} has {size:,} bytes; at most {most:,} can be read", code="too_large")
    return data


def write(root: Path, path: str, data: bytes) -> None:
    """Makes or replaces a plain file, whole or not at all, and the directories above it. Raises ToolError."""
    names = parts_of(path)
    if not names:
        raise ToolError("the path is empty; name a file", code="bad_path")
    with explained(path), directory(root, names[:-1], make=True) as parent:
        with contextlib.suppress(FileNotFoundError):
            _check_plain(path, os.stat(names[-1], dir_fd=parent, follow_symlinks=False))
        draft = f".{secrets.token_hex(8)}.part"
        try:
            with open(os.open(draft, NEW_FILE, 0o644, dir_fd=parent), "wb") as file:
                file.write(data)
            os.replace(draft, names[-1], src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=parent)
            raise


def path_of(root: Path, path: str) -> Path:
    """Where a plain file is, for a library that opens files itself. Raises ToolError.

    What is opened by this path is not checked again: nothing that a model may call makes symlinks in a workspace.
    """
    with opened(root, path):
        return root.resolve().joinpath(*parts_of(path))


def files(root: Path, path: str = "") -> Iterator[Found]:
    """The plain files of a directory and of all below it, sorted; symlinks are left out and not followed.

    Raises ToolError when there is no such directory.
    """
    names = parts_of(path)
    with explained(path or "the workspace"), directory(root, names) as top:
        for above, inner, found, here in os.fwalk(".", dir_fd=top, follow_symlinks=False):
            prefix = [*names, *Path(above).parts]
            inner[:] = sorted(inner) if len(prefix) < DEEPEST else []
            for name in sorted(found):
                with contextlib.suppress(FileNotFoundError):
                    about = os.stat(name, dir_fd=here, follow_symlinks=False)
                    if stat.S_ISREG(about.st_mode):
                        yield Found("/".join([*prefix, name]), about.st_size)


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """Turns an OSError into what a model can act on."""
    try:
        yield
    except OSError as exc:
        code, why = FAULTS.get(
            exc.errno or 0, ("file_error", f"it cannot be used ({errno.errorcode.get(exc.errno or 0)})")
        )
        raise ToolError(f"{path!r}: {why}", code=code) from exc


def _check_plain(path: str, about: os.stat_result) -> None:
    if not stat.S_ISREG(about.st_mode):
        raise ToolError(f"{path!r} is refused: it is not a plain file", code="bad_path")
