from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from cli import datadir
from cli.errors import UsageError


def test_a_second_one_is_refused_and_told_who_has_it(tmp_path):
    with datadir.DataDirLock(tmp_path / "new") as lock:
        lock.describe(pid=os.getpid(), url="http://127.0.0.1:1234")
        with pytest.raises(UsageError, match=rf"process {os.getpid()}\) and answers at http://127.0.0.1:1234"):
            datadir.DataDirLock(tmp_path / "new").__enter__()
    with datadir.DataDirLock(tmp_path / "new"):
        pass


def test_every_level_that_is_made_is_for_its_owner_alone(tmp_path):
    with datadir.DataDirLock(tmp_path / "new" / "data"):
        pass
    assert [stat.S_IMODE((tmp_path / made).stat().st_mode) for made in ("new", "new/data")] == [0o700, 0o700]


def test_the_folders_of_an_open_directory_are_closed(tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "logs").mkdir(mode=0o755)
    datadir.make_folders(tmp_path)
    assert {folder.name: stat.S_IMODE(folder.stat().st_mode) for folder in tmp_path.iterdir()} == dict.fromkeys(
        ("logs", "files", "work"), 0o700
    )
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_holder_that_is_gone_holds_nothing(tmp_path):
    code = f"""
import os
from pathlib import Path
from cli.datadir import DataDirLock
DataDirLock(Path({str(tmp_path)!r})).__enter__()
os._exit(1)
"""
    subprocess.run([sys.executable, "-c", code], check=False, cwd=datadir.__file__.rpartition("/cli/")[0])
    assert (tmp_path / datadir.LOCK).stat().st_size > 0
    assert datadir.holder(tmp_path) == {}
    with datadir.DataDirLock(tmp_path):
        assert datadir.holder(tmp_path)["pid"] == os.getpid()
    assert datadir.holder(tmp_path) == {}


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file/data cannot be written"):
        datadir.DataDirLock(tmp_path / "file" / "data").__enter__()


def test_the_admin_key_is_made_once_and_for_its_owner_alone(tmp_path):
    before = os.umask(0)
    try:
        key = datadir.ensure_admin_key(tmp_path)
    finally:
        os.umask(before)
    assert key.startswith("ns_")
    assert len(key) > 40
    assert stat.S_IMODE((tmp_path / "admin.key").stat().st_mode) == 0o600
    assert datadir.ensure_admin_key(tmp_path) == key


def test_an_admin_key_that_others_could_read_is_closed(tmp_path):
    (tmp_path / "admin.key").write_text("ns_mine\n")
    (tmp_path / "admin.key").chmod(0o644)
    assert datadir.ensure_admin_key(tmp_path) == "ns_mine"
    assert stat.S_IMODE((tmp_path / "admin.key").stat().st_mode) == 0o600
