"""Holds what the documentation says of names, numbers and places against the code."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from prometheus_client import CollectorRegistry, generate_latest

import api.settings
import worker.settings
from api import body, schemas
from api.metrics import Snapshot
from api.submission import LONGEST_KEY
from cli.main import app as command_line
from jobs.settings import PREFIX
from tests.docs.markdown import ROOT, anchors, code, column, name_of, pages, shell_lines, table

PAGES = pages()
API = ROOT / "docs/api.md"
ARCHITECTURE = ROOT / "docs/architecture.md"
OPERATORS = ROOT / "docs/operators.md"
LINK = re.compile(r"\]\(([^)\s]+)\)")
SOURCE = re.compile(r"(?:[\w.-]+/)+(?:[\w-]+\.(?:py|lua))?")
SETTINGS = (api.settings.Settings, worker.settings.Settings)
OF_PROGRAMS_BESIDE = {"NIGHTSHIFT_URL", "NIGHTSHIFT_API_KEY"}
"""What `cli.settings` reads besides."""
METRIC = re.compile(r"nightshift_[a-z_]+")
VARIABLE = re.compile(rf"{PREFIX}[A-Z_]+[A-Z]")


def variables_read() -> set[str]:
    fields = {f"{PREFIX}{name.upper()}" for cls in SETTINGS for name in cls.model_fields if "anthropic" not in name}
    return fields | OF_PROGRAMS_BESIDE


# ---- places


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{name_of(page)} links to {target}"
        assert not anchor or anchor in anchors(found), f"{name_of(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_exist(page: Path) -> None:
    tops = {path.name for path in ROOT.iterdir()} | {"lua"}
    for piece in code(page):
        if SOURCE.fullmatch(piece) and piece.partition("/")[0] in tops:
            assert any((root / piece).exists() for root in (ROOT, ROOT / "jobs", page.parent)), piece


def test_the_six_files_and_their_functions() -> None:
    rows = table(ARCHITECTURE, "#", "where")
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    for row in rows:
        path, *names = column([row], 1)
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert set(names) <= defined, path


# ---- settings


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_variables_that_are_named_are_read(page: Path) -> None:
    named = set(VARIABLE.findall(page.read_text(encoding="utf-8")))
    assert named <= variables_read(), f"nobody reads {sorted(named - variables_read())}"


def test_every_setting_is_documented() -> None:
    documented = {name for name in column(table(OPERATORS, "variable", "default")) if name.startswith(PREFIX)}
    assert documented == variables_read()


def test_the_command_line_reads_what_it_is_said_to() -> None:
    source = (ROOT / "cli/settings.py").read_text(encoding="utf-8")
    assert set(VARIABLE.findall(source)) - variables_read() == set()
    assert set(VARIABLE.findall(source)) >= OF_PROGRAMS_BESIDE


def test_the_documented_defaults_are_the_real_ones() -> None:
    documented = {column([row])[0]: row[1].strip("`") for row in table(OPERATORS, "variable", "default")}
    for name, values in _defaults().items():
        if len(values) == 1 and isinstance(value := values[0], str | int | float):
            shown = str(int(value) if isinstance(value, bool) else value) or "none"
            assert documented[name] == shown, name


def _defaults() -> dict[str, list[Any]]:
    """Of each variable, the defaults that the processes have for it."""
    found: dict[str, list[Any]] = {}
    for cls in SETTINGS:
        for name, field in cls.model_fields.items():
            values = found.setdefault(f"{PREFIX}{name.upper()}", [])
            values += [] if field.default in values else [field.default]
    return found


# ---- commands


def invocations(page: Path) -> Iterator[list[str]]:
    """The words of every `nightshift …` that the page shows."""
    for line in shell_lines(page):
        plain = re.sub(r"#sim .*|<[^>]*>|[…'\"]", "", line.partition(" # ")[0]).strip()
        found = re.search(r"(?:^|\s|/)nightshift\s+([a-z].*)", plain)
        if found and not re.search(r"[=:]\s*nightshift|FROM nightshift", plain):
            yield shlex.split(re.split(r"[|;)]", found[1])[0])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_options_exist(page: Path) -> None:
    for words in invocations(page):
        command: Any = typer.main.get_command(command_line)
        rest = list(words)
        while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
            assert rest[0] in command.commands, f"there is no `nightshift {' '.join(words)}`"
            command = command.commands[rest.pop(0)]
        options = {"--help", "-h"} | {name for param in command.params for name in param.opts}
        used = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
        assert used <= options, f"`nightshift {' '.join(words)}` has no {sorted(used - options)}"


def test_the_pages_show_commands_at_all() -> None:
    shown = {words[0] for page in PAGES for words in invocations(page)}
    assert {"up", "demo", "submit", "explain", "doctor", "simulator"} <= shown


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for line in shell_lines(page):
        found = re.match(r"(?:\$ )?make(?: [A-Z]+=\S+)* ([a-z]+)\b", line)
        assert found is None or found[1] in targets, line


# ---- metrics


def metrics() -> set[str]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Snapshot({}, {}, 0))
    return set(re.findall(r"^# TYPE (\S+)", generate_latest(registry).decode(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_metrics_that_are_named_exist(page: Path) -> None:
    own = set(METRIC.findall((ROOT / "worker/metrics.py").read_text(encoding="utf-8")))
    named = {name for piece in code(page) for name in METRIC.findall(piece)}
    assert named - {"nightshift_client", "nightshift_memory"} <= metrics() | own  # a package, a collection


def test_every_metric_is_documented() -> None:
    documented = {METRIC.findall(name)[0] for name in column(table(OPERATORS, "metric"))}
    assert documented == metrics()


# ---- the HTTP API's limits


def test_limits() -> None:
    text = {row[0]: row[1] for row in table(API, "what", "at most")}
    assert re.findall(r"\d+(?= bytes| levels| members)", text["a JSON body"]) == [
        str(body.MAX_BYTES), str(body.MAX_DEPTH), str(body.MAX_MEMBERS)
    ]  # fmt: skip
    assert str(schemas.MAX_BATCH) in text["a batch"]
    assert str(LONGEST_KEY) in text["`Idempotency-Key`"]
    properties = schemas.Submission.model_json_schema()["properties"]
    assert str(properties["files"]["maxItems"]) in text["files of a job"]
    assert str(properties["agent"]["maxLength"]) in text["`agent`"]
    assert str(properties["user"]["anyOf"][0]["maxLength"]) in text["`session_id`, `user`"]
    tags = properties["tags"]
    assert f"{tags['maxItems']} of {tags['items']['maxLength']} " in text["`tags`"]


def test_fields_of_a_submission() -> None:
    assert set(column(table(API, "field", "what"))) == set(schemas.Submission.model_fields)
