"""The entry of a worker process, before it runs."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from worker.errors import StartError
from worker.main import own_data_dir
from worker.settings import Settings


def test_the_data_directory_is_made_for_its_owner_alone(tmp_path: Path):
    own_data_dir(Settings.model_validate({"data_dir": tmp_path / "new" / "data"}))
    assert [stat.S_IMODE((tmp_path / made).stat().st_mode) for made in ("new", "new/data")] == [0o700, 0o700]


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"NIGHTSHIFT_DATA_DIR is '.*file/data': it cannot be made: "):
        own_data_dir(Settings.model_validate({"data_dir": tmp_path / "file" / "data"}))
