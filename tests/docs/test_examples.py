"""Runs the examples of the documentation, all against one platform on the simulated model.

Every `python` block is run, those of one page one after the other in one namespace. Of the `console` blocks those run
that have `<!-- run -->` before them, in one shell for each page: where output is shown, it must be that ("…" stands for
anything), and any command that fails, or request that is refused, fails the test. What a reader starts stands for what
was started here: localhost:8080 for the platform, localhost:8090 for the simulated model, and `job_…` for the newest
job. The directory has the README's `support.py`, a `sales.csv`, and the data directory `.nightshift`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.harness import ROOT, Up, environment
from tests.docs.markdown import blocks, commands, name_of

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").glob("*/README.md"))]
WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]
WITH_COMMANDS = [page for page in PAGES if any(block.marked for block in blocks(page, "console"))]
SALES = "region,category,amount\nnorth,books,10\nsouth,toys,30\nnorth,toys,7\n"
PREAMBLE = """set -eu
newest_job() {
  nightshift jobs --limit 1 --json | python -c 'import json, sys; print(json.load(sys.stdin)["data"][0]["id"])'
}
"""


@dataclass(frozen=True)
class Place:
    """A directory like that of a reader, and what runs."""

    directory: Path
    platform: str
    model: str
    key: str

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        return {"PATH": path, "CURL_HOME": str(self.directory), "NO_PROXY": "*", "no_proxy": "*"}

    def here(self, text: str) -> str:
        """The text with the addresses of what runs."""
        return text.replace("localhost:8080", self.platform).replace("localhost:8090", self.model)


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    """Host and port of a simulated model."""
    command = [sys.executable, "-m", "cli", "simulator", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        found = re.search(r"http://([\d.]+:\d+)", process.stdout.readline())
        assert found is not None
        yield found[1]
        process.terminate()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model: str) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("docs")
    (directory / "support.py").write_text(blocks(README, "python")[0].text, encoding="utf-8")
    for folder in (directory, directory / "data"):
        folder.mkdir(exist_ok=True)
        (folder / "sales.csv").write_text(SALES, encoding="utf-8")
    (directory / ".curlrc").write_text("fail-with-body\nshow-error\n", encoding="utf-8")
    (directory / ".venv").symlink_to(sys.prefix)
    agents = f"{ROOT / 'examples/analyst/agent.py'},support.py"
    up = Up(
        directory / ".nightshift",
        "--agents",
        agents,
        NIGHTSHIFT_MODEL_BASE_URL=f"http://{model}",
        NIGHTSHIFT_WEBHOOK_ALLOW_PRIVATE="1",
    )
    try:
        up.wait_until_up()
        yield Place(directory, up.url.removeprefix("http://"), model, up.key)
        assert up.signal(signal.SIGTERM) == 0
    finally:
        up.close()


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_python(page: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.directory)
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NIGHTSHIFT_URL", f"http://{place.platform}")
    monkeypatch.setenv("NIGHTSHIFT_API_KEY", place.key)
    namespace = {"__name__": f"example_of_{page.stem}"}
    for block in blocks(page, "python"):
        # Empty lines before it, so that a traceback names the line of the page.
        source = "\n" * (block.line - 1) + place.here(block.text)
        exec(compile(source, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name_of)
def test_console(page: Path, place: Place, tmp_path: Path) -> None:
    found = [command for block in blocks(page, "console") if block.marked for command in commands(block)]
    if shutil.which("curl") is None and any("curl" in command.text for command in found):
        pytest.skip("there is no curl here")
    steps = [
        f"{{ {place.here(command.text).replace('job_…', '$(newest_job)')}\n}} >{tmp_path / str(number)}"
        for number, command in enumerate(found)
    ]
    done = subprocess.run(
        ["bash", "-c", PREAMBLE + "\n".join(steps)],
        cwd=place.directory,
        env=environment(**place.environment),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    outputs = [path.read_text().strip() for n in range(len(found)) if (path := tmp_path / str(n)).exists()]
    last = found[len(outputs) - 1]
    assert done.returncode == 0, f"{name_of(page)}:{last.line}: {last.text}\n{outputs[-1]}\n{done.stderr}"
    for command, output in zip(found, outputs, strict=True):
        pattern = ".*".join(map(re.escape, command.shown.split("…")))
        matches = not command.shown or re.fullmatch(pattern, output, re.DOTALL)
        assert matches, f"{name_of(page)}:{command.line}: {command.text}\nsays:\n{output}\nand not:\n{command.shown}"


def test_every_kind_of_example_was_found() -> None:
    assert README in WITH_PYTHON
    assert {README, ROOT / "docs/api.md", ROOT / "docs/simulated-model.md"} <= set(WITH_COMMANDS)
