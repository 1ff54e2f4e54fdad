"""Who may import whom."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ONLY_IN = {
    "mlflow": "bench/records/tracking.py",
    "tabulate": "bench/reporting/formats.py",
    "click": "bench/cli/",
    "matplotlib": "bench/reporting/plots.py",
    "ray": "bench/execution/ray_cluster.py",
}
LEAVES = {"augmentations", "attacks"}


def imports(path: Path) -> Iterator[str]:
    """The modules a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def offences(path: str, modules: list[str]) -> list[str]:
    """What a file at ``path`` imports although the layers forbid it."""
    found = []
    package = path.partition("/")[0]
    for module in modules:
        top = module.partition(".")[0]
        if package in LEAVES and top in LEAVES | {"bench"} and top != package:
            found.append(f"{path} imports {module}: {package} knows only itself")
        if top in ONLY_IN and not path.startswith(ONLY_IN[top]):
            found.append(f"{path} imports {module}: only {ONLY_IN[top]} does")
        if module.startswith("bench.cli") and not path.startswith(("bench/cli/", "bench/__main__")):
            found.append(f"{path} imports {module}: nothing imports the command line")
    return found


def test_every_module_keeps_to_its_layer() -> None:
    files = [
        path
        for name in ("bench", "augmentations", "attacks")
        for path in (ROOT / name).rglob("*.py")
    ]
    assert len(files) > 20
    found = [
        offence
        for path in files
        for offence in offences(path.relative_to(ROOT).as_posix(), list(imports(path)))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("attacks/jsma.py", "augmentations.base"),
        ("augmentations/cutout.py", "bench.seeds"),
        ("bench/runs.py", "mlflow.tracking"),
        ("bench/runs.py", "bench.cli"),
        ("bench/statistics.py", "tabulate"),
    ],
)
def test_a_broken_layer_is_noticed(path: str, module: str) -> None:
    assert offences(path, [module])


def test_the_command_line_starts_without_anything_heavy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from bench.cli import main; "
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0; "
        "assert CliRunner().invoke(main, ['run', '--help']).exit_code == 0; "
        "heavy = {'torch', 'mlflow', 'numpy', 'timm', 'scipy', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
