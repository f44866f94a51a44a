"""The demo's input, written from what is really installed here and from distributions laid out by hand."""

from __future__ import annotations

import csv
import importlib.metadata
import sys
from pathlib import Path

import pytest

from cli.inventory import COLUMNS, write_inventory


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def install(where: Path, name: str, version: str, metadata: str, files: dict[str, int] | None = None) -> None:
    """Lays out a distribution as an installer leaves it: metadata, and a record of its files."""
    info = where / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{metadata}", "utf-8")
    for file, size in (files or {}).items():
        (where / file).write_bytes(b"x" * size)
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files or {}))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is the only place in which distributions are installed."""
    directory = tmp_path / "site"
    directory.mkdir()
    monkeypatch.setattr(sys, "path", [str(directory)])
    return directory


def test_what_is_installed_here_is_in_it(tmp_path: Path) -> None:
    count = write_inventory(tmp_path / "packages.csv")

    rows = rows_of(tmp_path / "packages.csv")
    assert len(rows) == count > 10
    assert tuple(rows[0]) == COLUMNS
    names = [row["name"].lower().replace("_", "-").replace(".", "-") for row in rows]
    assert names == sorted(set(names))
    anthropic = rows[names.index("anthropic")]
    assert anthropic["version"] == importlib.metadata.version("anthropic")
    assert int(anthropic["size_bytes"]) > 100_000
    assert int(anthropic["files"]) > 50
    assert int(anthropic["dependencies"]) >= 5
    assert all(row["license"] and row["version"] for row in rows)
    assert all("\n" not in value for row in rows for value in row.values())


def test_two_runs_write_the_same(tmp_path: Path) -> None:
    write_inventory(tmp_path / "a.csv")
    write_inventory(tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_a_row_adds_up_its_files_and_counts_what_it_needs(site: Path, tmp_path: Path) -> None:
    metadata = (
        'License-Expression: Apache-2.0\nRequires-Python: >=3.11\nSummary: Größe, "and" more\n'
        "Requires-Dist: one>=1\nRequires-Dist: two ; python_version < '4'\nRequires-Dist: three ; extra == 'x'\n"
        "Requires-Dist: four>=2; (python_version < '4') and extra=='x'\nRequires-Dist: extra-name\n"
    )
    install(site, "Solo.Pack", "1.5", metadata, {"a.py": 100, "b.py": 23, "gone.py": 1000})
    (site / "gone.py").unlink()

    assert write_inventory(tmp_path / "out.csv") == 1
    assert rows_of(tmp_path / "out.csv") == [
        {
            "name": "Solo.Pack", "version": "1.5", "license": "Apache-2.0", "size_bytes": "123", "files": "2",
            "dependencies": "3", "requires_python": ">=3.11", "summary": 'Größe, "and" more',
        }
    ]  # fmt: skip


def test_the_first_on_the_path_wins(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    install(site, "zeta", "1", "")
    install(site, "my_pack", "2", "")
    install(other, "My-Pack", "1", "")
    monkeypatch.setattr(sys, "path", [str(site), str(other)])

    write_inventory(tmp_path / "out.csv")

    assert [(row["name"], row["version"]) for row in rows_of(tmp_path / "out.csv")] == [("my_pack", "2"), ("zeta", "1")]


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("License-Expression: MIT\nLicense: something else\n", "MIT"),
        ("Classifier: License :: OSI Approved :: MIT License\nLicense: Something\n", "MIT"),
        ("Classifier: License :: OSI Approved :: BSD License\nClassifier: License :: Other\n", "BSD License, Other"),
        ("Classifier: License :: OSI Approved\nLicense: BSD\n", "BSD"),
        ("License: Copyright (c) 2026 Someone\n        All rights reserved\n", "Copyright (c) 2026 Someone"),
        (f"License: {'very ' * 50}long\n", ("very " * 8).strip()),
        ("", "unknown"),
    ],
)
def test_a_license_is_short(site: Path, tmp_path: Path, metadata: str, expected: str) -> None:
    install(site, "pack", "1", metadata)
    write_inventory(tmp_path / "out.csv")
    assert rows_of(tmp_path / "out.csv")[0]["license"] == expected


def test_nothing_installed_is_a_header(site: Path, tmp_path: Path) -> None:
    assert write_inventory(tmp_path / "out.csv") == 0
    assert (tmp_path / "out.csv").read_text().splitlines() == [",".join(COLUMNS)]
