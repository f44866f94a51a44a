"""Holds the tables of docs/api.md against the code: endpoints, scopes, error codes, and the words of the job's life."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, get_args

import api.routes
import jobs.errors
from agent_core.entries import ENTRY_TYPES
from agent_core.loop import STOPS
from api import errors
from api.app import create_app
from api.auth import Authorized
from api.settings import Settings
from jobs.decisions import NEEDS_RECONCILE
from jobs.explain import Gate
from jobs.status import STATUSES, TRANSITIONS
from tests.docs.markdown import ROOT, column, table

API = ROOT / "docs/api.md"
STATUS_OF = {cls.__name__: status for cls, status in errors.STATUS_OF.items()}


# ---- error codes


def trees() -> Iterator[ast.AST]:
    for path in [*(ROOT / "jobs").glob("*.py"), *(ROOT / "api").rglob("*.py")]:
        if path.name != "testing.py":
            yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def raised() -> dict[str, set[int]]:
    """Every code that a refusal can carry, and the statuses with which it is raised where that can be read off."""
    found: defaultdict[str, set[int]] = defaultdict(set)
    for status, code in errors.CODE_OF.items():
        found[code].add(status)
    for name, cls in {**vars(jobs.errors), "FieldsError": errors.FieldsError}.items():
        if isinstance(cls, type) and issubclass(cls, jobs.errors.JobsError) and cls is not jobs.errors.JobsError:
            found[cls.code].add(STATUS_OF.get(name, STATUS_OF["InvalidError"]))
    for node in trees():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            match node.func.id, node.args:
                case "RefusedError", [ast.Constant(value=int(status)), ast.Constant(value=str(code)), *_]:
                    found[code].add(status)
                case name, _ if name in STATUS_OF:
                    for keyword in node.keywords:
                        if keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
                            found[str(keyword.value.value)].add(STATUS_OF[name])
    return found


def test_error_codes() -> None:
    documented = {column([row])[0]: row[1] for row in table(API, "`code`", "status")}
    assert documented.pop("refused") == "other"
    found = raised()
    assert set(documented) == set(found)
    for code, statuses in documented.items():
        assert found[code] <= set(map(int, re.findall(r"\d+", statuses))), code


# ---- endpoints


def endpoints() -> dict[str, str]:
    """The scope of each endpoint, "no key" for those that need none."""
    found: dict[str, str] = {}
    for module in pkgutil.iter_modules(api.routes.__path__):
        for route in importlib.import_module(f"api.routes.{module.name}").router.routes:
            calls = [dependency.call for dependency in route.dependant.dependencies]
            scopes = [call.scope for call in calls if isinstance(call, Authorized)]
            path = route.path if module.name == "health" else f"/v1{route.path_format}"
            (method,) = route.methods
            found[f"{method} {path}"] = scopes[0] if scopes else "no key"
    return found


def test_endpoints_and_their_scopes() -> None:
    documented = {column([row])[0]: row[1].strip("`") for row in table(API, "method and path", "scope")}
    assert documented == endpoints()
    paths = create_app(Settings()).openapi()["paths"]
    assert {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods} == set(documented)


# ---- words


def words_of(*header: str) -> set[str]:
    return set(column(table(API, *header)))


def test_statuses() -> None:
    assert words_of("status", "what it waits for") == set(STATUSES)


def test_gates() -> None:
    assert words_of("`gate`", "the job") == set(get_args(Gate))


def test_stop_reasons() -> None:
    documented = words_of("`stop_reason`", "the job")
    of_people = {"cancelled", "expired", NEEDS_RECONCILE}
    assert documented == set(STOPS) | set(literals("Stopped", 0)) | {"end_turn"} | of_people


def test_reasons_of_ledger_rows() -> None:
    tree = ast.parse((ROOT / "agent_core/turn.py").read_text(encoding="utf-8"))
    settle = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "_settle")
    texts = {node.value for node in ast.walk(settle) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    words = {text for text in texts if re.fullmatch("[a-z_]+", text)} - {"output_tokens"}
    assert words_of("`reason`", "settled at") == {"reserved", *words}


def test_event_types() -> None:
    moves = {transition.event for transition in TRANSITIONS.values()}
    notes = {"approval.requested", "user.message", "state.changed", "message.delta", "budget.reached", "tool.charged"}
    notes |= {"child.started", "child.completed", "embedding.started", "embedding.completed"}
    notes |= {"memory.recalled", "memory.unavailable"}
    assert words_of("type", "when") == moves | set(ENTRY_TYPES) | notes
    written = [path for package in ("jobs", "worker") for path in (ROOT / package).glob("*.py")]
    source = "".join(path.read_text(encoding="utf-8") for path in written)
    assert all(f'"{note}"' in source for note in notes)


def literals(function: str, position: int) -> Iterator[Any]:
    """What calls of a function name stand at a position, where it is written as a constant."""
    for package in ("agent_core", "worker"):
        for path in (ROOT / package).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
                    argument = node.args[position]
                    if isinstance(argument, ast.Constant):
                        yield argument.value
