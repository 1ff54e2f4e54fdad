"""What keeps foreign code out: the lock file, the audit, and functions that are never used."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import audit
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "requirements.lock").read_text()

FORBIDDEN = {
    "eval": ("eval(input())", "S307"),
    "exec": ("exec(input())", "S102"),
    "pickle": ("import pickle\n\npickle.loads(b'')", "S301"),
    "cloudpickle": ("import dill\n\ndill.loads(b'')", "S301"),
    "yaml.load": ("import yaml\n\nyaml.load('', yaml.Loader)", "S506"),
    "shell=True": ("import subprocess\n\nsubprocess.run('ls', shell=True)", "S602"),
    "os.system": ("import os\n\nos.system('ls')", "S605"),
    "marshal": ("import marshal\n\nmarshal.loads(b'')", "S302"),
}
"""A use of each thing that must stay out, and the rule of ruff that finds it."""


def ruff(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("name", FORBIDDEN)
@pytest.mark.parametrize("place", ["bench/cli/new.py", "attacks/new.py"])
def test_what_runs_foreign_code_is_found_wherever_it_is_written(name: str, place: str) -> None:
    text, rule = FORBIDDEN[name]
    found = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--stdin-filename", place, "-"],
        input=f'"""A module."""\n\n{text}\n',
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert rule in found.stdout


def test_nothing_runs_foreign_code() -> None:
    rules = ",".join(sorted({rule for _, rule in FORBIDDEN.values()}))
    packages = ("bench", "attacks", "augmentations", "noxfile.py")
    found = ruff("--ignore-noqa", "--select", rules, *packages)
    assert found.returncode == 0, found.stdout


def test_torch_loads_weights_only() -> None:
    for top in ("bench", "attacks", "augmentations", "tests"):
        for path in (ROOT / top).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                    given = {each.arg: ast.unparse(each.value) for each in node.keywords}
                    assert given.get("weights_only") == "True", f"{path}:{node.lineno}"


def required() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    found = [Requirement(text) for text in listed]
    return [each for each in found if each.name != "deletion-bench"]


def test_the_lock_file_holds_every_dependency_with_hashes() -> None:
    versions: dict[str, list[Version]] = {}
    for name, version in audit.locked():
        versions.setdefault(name, []).append(Version(version))
    for each in required():
        name = canonicalize_name(each.name)
        assert name in versions, f"{name} is missing: run nox -s lock"
        assert any(version in each.specifier for version in versions[name]), each
    entries = re.split(r"^(?=[A-Za-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) == len(audit.locked())
    assert all("--hash=sha256:" in entry for entry in entries)


def advisory(**changes: Any) -> dict[str, Any]:
    affected = {
        "package": {"name": "Some_Package", "ecosystem": "PyPI"},
        "ranges": [
            {"type": "ECOSYSTEM", "events": [{"introduced": "1.2"}, {"fixed": "1.4"}]},
        ],
        "versions": ["3.0"],
    }
    return {"id": "PYSEC-1", "affected": [affected | changes]}


@pytest.mark.parametrize(
    ("version", "weak"),
    [("1.1", False), ("1.2", True), ("1.3.9", True), ("1.4", False), ("3.0", True), ("x", False)],
)
def test_the_audit_finds_the_versions_that_an_advisory_names(version: str, weak: bool) -> None:
    found = audit.weaknesses([("some-package", version)], [advisory()])
    assert found == ([("some-package", version, "PYSEC-1")] if weak else [])


def test_the_audit_ignores_other_ecosystems_and_withdrawn_advisories() -> None:
    other = advisory(package={"name": "some-package", "ecosystem": "npm"})
    withdrawn = advisory() | {"withdrawn": "2026-01-01T00:00:00Z"}
    assert audit.weaknesses([("some-package", "1.3")], [other, withdrawn]) == []


def test_the_audit_reads_files_and_folders_and_says_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, version = audit.locked()[0]
    weak = advisory(package={"name": name, "ecosystem": "PyPI"}, versions=[version])
    (tmp_path / "one.json").write_text(json.dumps(weak))
    assert audit.main(str(tmp_path)) == 1
    assert f"{name} {version}: PYSEC-1" in capsys.readouterr().out
    (tmp_path / "one.json").write_text(json.dumps([advisory()]))
    assert audit.main(str(tmp_path / "one.json")) == 0
    for content in ("[]", "{}", "no list"):
        (tmp_path / "one.json").write_text(content)
        assert audit.main(str(tmp_path / "one.json")) == 2
    assert audit.main(str(tmp_path / "nosuch.json")) == 2
