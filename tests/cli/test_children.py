from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cli import leash
from cli.children import Child, ChildError, Program
from tests.cli.harness import still_alive

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(999)"
)
OBEDIENT = "import time; print('ready', flush=True); time.sleep(999)"


def program(code: str, grace: float = 30.0) -> Program:
    return Program("child", (sys.executable, "-c", code), dict(os.environ), grace=grace)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 (another process's state has no event)
        await asyncio.sleep(0.01)


async def test_it_runs_until_it_is_stopped(tmp_path: Path):
    child = Child(program(OBEDIENT), tmp_path / "log")
    await until(lambda: (tmp_path / "log").exists() and "ready" in (tmp_path / "log").read_text())
    process = psutil.Process(child.pid)
    await child.stop()
    assert not process.is_running()
    assert child.running.exception() is None


async def test_it_is_started_again_when_it_dies(tmp_path: Path, capsys):
    child = Child(program(OBEDIENT), tmp_path / "log")
    await until(lambda: child.pid is not None)
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: child.pid not in (None, first))
    await child.stop()
    assert "child was killed by signal 9; starting it again" in capsys.readouterr().err


async def test_one_that_keeps_dying_is_given_up_with_its_last_words(tmp_path: Path):
    child = Child(program("import os; print('no such luck', os.getpid()); raise SystemExit(5)"), tmp_path / "log")
    with pytest.raises(ChildError, match=r"ended with status 5 and cannot be kept running\n  no such luck \d+$"):
        await child.running
    assert (tmp_path / "log").read_text().count("no such luck") == 4


async def test_one_whose_settings_are_wrong_is_not_started_again(tmp_path: Path):
    child = Child(program("print('what a setting'); raise SystemExit(2)"), tmp_path / "log")
    with pytest.raises(ChildError, match="what a setting"):
        await child.running
    assert (tmp_path / "log").read_text().count("what a setting") == 1


async def test_one_that_does_not_obey_is_killed_after_its_grace(tmp_path: Path):
    child = Child(program(STUBBORN, grace=0.1), tmp_path / "log")
    await until(lambda: (tmp_path / "log").exists() and "ready" in (tmp_path / "log").read_text())
    await child.stop()
    assert child.pid is None


async def test_in_a_hurry_there_is_no_grace(tmp_path: Path):
    hurry = asyncio.Event()
    child = Child(program(STUBBORN, grace=3600), tmp_path / "log", hurry=hurry)
    await until(lambda: (tmp_path / "log").exists() and "ready" in (tmp_path / "log").read_text())
    hurry.set()
    await child.stop()
    assert child.pid is None


async def test_what_it_prints_is_copied_when_asked_for(tmp_path: Path, capsys):
    child = Child(program("print('hello'); raise SystemExit(2)"), tmp_path / "log", echo=True)
    with pytest.raises(ChildError):
        await child.running
    assert "child | hello" in capsys.readouterr().err
    assert (tmp_path / "log").read_text() == "hello\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is gone")
def test_on_the_leash_it_ends_with_a_parent_that_is_killed():
    parent_code = f"""
import os, subprocess, sys
command = [sys.executable, "-I", "-S", {leash.__file__!r}, "9", str(os.getpid()), sys.executable, "-c", {OBEDIENT!r}]
child = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""
    with subprocess.Popen([sys.executable, "-c", parent_code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
    assert still_alive([child]) == []


def test_the_leash_is_refused_when_the_parent_is_already_gone():
    command = [sys.executable, "-I", "-S", leash.__file__, "9", "1", sys.executable, "-c", "print('ran')"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == ((1, "") if sys.platform == "linux" else (0, "ran\n"))
