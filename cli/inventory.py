"""The demo's own input: an inventory of the Python distributions that are installed where it runs."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageMetadata, distributions
from pathlib import Path

COLUMNS = (
    "name", "version", "license", "size_bytes", "files", "dependencies", "requires_python", "summary",
)  # fmt: skip
UNKNOWN = "unknown"
LICENSE_CHARS = 40
UMBRELLAS = {"OSI Approved", "DFSG approved"}
# The classifiers that name one license, so that a count by license finds old and new metadata together.
SPDX = {
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
OPTIONAL = re.compile(r";.*\bextra\b")


def write_inventory(path: Path) -> int:
    """Writes a CSV with a row for each installed distribution, sorted by name, and returns how many rows it has.

    `size_bytes` and `files` cover the files that are there, `dependencies` the requirements that no extra brings in.
    """
    rows = sorted(_rows(distributions()), key=lambda row: (_canonical(str(row[0])), row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return len(rows)


def _rows(found: Iterable[Distribution]) -> list[tuple[str | int, ...]]:
    """One row for each name: the distribution that an import would find, which is the first on the path."""
    rows: dict[str, tuple[str | int, ...]] = {}
    for distribution in found:
        name = _field(distribution.metadata, "Name")
        if name and _canonical(name) not in rows:
            rows[_canonical(name)] = _row(name, distribution)
    return list(rows.values())


def _row(name: str, distribution: Distribution) -> tuple[str | int, ...]:
    metadata = distribution.metadata
    sizes = _sizes(distribution)
    return (
        name,
        _field(metadata, "Version") or UNKNOWN,
        _license(metadata),
        sum(sizes),
        len(sizes),
        sum(not OPTIONAL.search(requirement) for requirement in distribution.requires or []),
        _field(metadata, "Requires-Python"),
        _field(metadata, "Summary"),
    )


def _sizes(distribution: Distribution) -> list[int]:
    sizes = []
    for file in distribution.files or []:
        try:
            sizes.append(Path(str(distribution.locate_file(file))).stat().st_size)
        except OSError:
            continue  # recorded when it was installed, and gone since
    return sizes


def _license(metadata: PackageMetadata) -> str:
    """The SPDX expression; else what the classifiers say; else the first line of the free text."""
    classifiers = [c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier") or [] if c.startswith("License ::")]
    named = ", ".join(sorted({SPDX.get(c, c) for c in classifiers if c not in UMBRELLAS}))
    found = _field(metadata, "License-Expression") or named or _field(metadata, "License")
    return found[:LICENSE_CHARS].rstrip() or UNKNOWN


def _field(metadata: PackageMetadata, name: str) -> str:
    """The first line of a metadata field, or "" when it is not there."""
    lines = [line for value in (metadata.get_all(name) or [])[:1] for line in value.strip().splitlines()[:1]]
    return " ".join("".join(lines).split())


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
