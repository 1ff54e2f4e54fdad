"""Known weaknesses of what the lock file or this environment holds: ``nox -s audit -- LIST``.

LIST is a JSON file of advisories in the OSV format (ossf.github.io/osv-schema), one, a list of
them, or a folder of such files, as the database of the Python Packaging Authority publishes them.
Nothing is asked of any network.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

LOCK = Path(__file__).parent.parent / "requirements.lock"


def advisories(place: Path) -> Iterator[dict[str, Any]]:
    """Every advisory of a file or folder; raises ``ValueError`` for what holds none."""
    files = sorted(place.rglob("*.json")) if place.is_dir() else [place]
    for file in files:
        found = json.loads(file.read_text())
        for each in found if isinstance(found, list) else [found]:
            if not isinstance(each, dict) or "id" not in each:
                raise ValueError(f"{file} holds no advisory in the OSV format")
            yield each


def locked(lock: Path = LOCK) -> list[tuple[str, str]]:
    """Name and version of every package of the lock file."""
    entry = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^ ;\\]+)", re.MULTILINE)
    return [(canonicalize_name(name), version) for name, version in entry.findall(lock.read_text())]


def installed() -> list[tuple[str, str]]:
    """Name and version of every package of this environment."""
    return [(canonicalize_name(each.name), each.version) for each in metadata.distributions()]


def weaknesses(
    packages: Iterable[tuple[str, str]], known: Iterable[dict[str, Any]]
) -> list[tuple[str, str, str]]:
    """Name, version and advisory of each package that an advisory names."""
    versions: dict[str, set[str]] = {}
    for name, version in packages:
        versions.setdefault(name, set()).add(version)
    found = set()
    for advisory in known:
        if "withdrawn" in advisory:
            continue
        for affected in advisory.get("affected", []):
            package = affected.get("package", {})
            name = canonicalize_name(package.get("name", ""))
            if package.get("ecosystem") != "PyPI":
                continue
            hit = [version for version in versions.get(name, ()) if is_hit(version, affected)]
            found |= {(name, version, advisory["id"]) for version in hit}
    return sorted(found)


def is_hit(version: str, affected: dict[str, Any]) -> bool:
    """Whether a version is listed or lies in a range: from ``introduced`` to before ``fixed``."""
    if version in affected.get("versions", []):
        return True
    try:
        own = Version(version)
        for each in affected.get("ranges", []):
            if each.get("type") != "ECOSYSTEM":
                continue
            inside = False
            for event in each.get("events", []):
                if "introduced" in event and own >= Version(event["introduced"]):
                    inside = True
                if "fixed" in event and own >= Version(event["fixed"]):
                    inside = False
                if "last_affected" in event and own > Version(event["last_affected"]):
                    inside = False
            if inside:
                return True
    except InvalidVersion:
        return False
    return False


def main(place: str) -> int:
    """Print each weakness; 1 if there is any, 2 if the list cannot be read."""
    try:
        known = list(advisories(Path(place)))
    except (OSError, ValueError) as error:
        print(f"cannot read the list {place}: {error}")
        return 2
    if not known:
        print(f"{place} holds no advisory: give a file or folder in the OSV format")
        return 2
    packages = {*locked(), *installed()}
    found = weaknesses(packages, known)
    for name, version, advisory in found:
        print(f"{name} {version}: {advisory}")
    print(f"{len(packages)} versions, {len(known)} advisories, {len(found)} weaknesses")
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
