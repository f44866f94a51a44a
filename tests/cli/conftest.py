"""What the tests of the command line share."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.main import main
from tests.cli.harness import OWN, Result, Up

Cli = Callable[..., Result]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the platform, and a directory of the test's own to stand in."""
    for name in list(os.environ):
        if name.startswith(OWN):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command in this process, its output piped."""
    monkeypatch.setattr(sys, "path", [*sys.path])  # `worker` adds to it

    def run(*words: str | Path, stdin: str = "", program: str = "nightshift") -> Result:
        monkeypatch.setattr(sys, "argv", [program, *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Result(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A platform with the example agent and the simulated model, for all tests that do not harm it."""
    up = Up(tmp_path_factory.mktemp("platform") / "data")
    try:
        up.wait_until_up()
        yield up
    finally:
        up.close()


@pytest.fixture
def platform(running: Up, monkeypatch: pytest.MonkeyPatch) -> Up:
    """The running platform, and an environment that leads to it."""
    monkeypatch.setenv("NIGHTSHIFT_DATA_DIR", str(running.data_dir))
    return running
