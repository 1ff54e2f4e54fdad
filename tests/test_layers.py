"""Who may import whom: rooms in one order, and libraries in one place."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = (
    {"attacks", "augmentations", "bench.errors"},
    {"bench.files"},
    {"bench.registry"},
    {"bench.data", "bench.records"},
    {"bench.execution", "bench.models"},
    {"bench.training"},
    {"bench.points", "bench.robustness"},
    {"bench.reporting"},
    {"bench.studies"},
    {"bench.paper", "bench.speed"},
    {"bench"},
    {"bench.cli"},
    {"bench.__main__"},
)
"""The rooms from the bottom; a module imports from its own room and from floors below it."""
ONLY_IN = {
    "mlflow": "bench.records.tracking",
    "tabulate": "bench.reporting.table",
    "click": "bench.cli",
    "matplotlib": "bench.reporting.plots",
    "ray": "bench.execution.ray_cluster",
    "submitit": "bench.execution.slurm",
}
"""Library → the module or room that alone imports it."""
ROOMS = {room for floor in ORDER for room in floor}


def modules() -> dict[str, Path]:
    """Every module of the project by its dotted name."""
    found = {}
    for top in ("attacks", "augmentations", "bench"):
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: set[str]) -> Iterator[str]:
    """What a file imports, anywhere in it; submodules under their own names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


def room(module: str) -> str:
    """The room of a module: the longest of `ROOMS` that it lies in."""
    parts = module.split(".")
    return next(
        name
        for length in range(len(parts), 0, -1)
        if (name := ".".join(parts[:length])) in ROOMS
        and (length > 1 or parts[0] != "bench" or len(parts) == 1)
    )


def floor(module: str) -> int:
    """The number of a module's floor, from the ground."""
    return next(number for number, rooms in enumerate(ORDER) if room(module) in rooms)


def offences(module: str, imported: list[str]) -> list[str]:
    """What a module imports although the order forbids it."""
    found = []
    for other in imported:
        top = other.partition(".")[0]
        if top in ONLY_IN and not f"{module}.".startswith(f"{ONLY_IN[top]}."):
            found.append(f"{module} imports {other}: only {ONLY_IN[top]} does")
        if top not in ("attacks", "augmentations", "bench"):
            continue
        if room(module) != room(other) and floor(other) >= floor(module):
            found.append(f"{module} imports {other}: {room(other)} is not below {room(module)}")
    return found


def test_every_module_imports_from_below() -> None:
    found = modules()
    assert len(found) > 80
    assert [
        offence
        for name, path in found.items()
        for offence in offences(name, list(imports(path, set(found))))
    ] == []


def test_no_two_modules_import_each_other() -> None:
    found = modules()
    faces = {"attacks", "augmentations", "bench", "bench.cli"}  # they only hand names on
    arrows = {
        name: set(imports(path, set(found))) & set(found) - faces
        for name, path in found.items()
        if name not in faces
    }
    while arrows:
        leaves = {name for name, below in arrows.items() if not below & arrows.keys() - {name}}
        assert leaves, f"in a circle: {', '.join(sorted(arrows))}"
        arrows = {name: below for name, below in arrows.items() if name not in leaves}


def test_bench_has_few_rooms_and_each_says_what_belongs_in_it() -> None:
    entries = [
        path
        for path in (ROOT / "bench").iterdir()
        if path.name not in ("__init__.py", "py.typed", "__pycache__")
    ]
    assert len(entries) <= 16
    for path in entries:
        if path.is_dir():
            text = ast.get_docstring(ast.parse((path / "__init__.py").read_text())) or ""
            assert "Not here:" in text, path.name


@pytest.mark.parametrize(
    ("module", "other"),
    [
        ("attacks.jsma", "augmentations.base"),
        ("augmentations.cutout", "bench.data.seeds"),
        ("bench.training.loop", "mlflow.tracking"),
        ("bench.studies.jobs", "bench.cli.run"),
        ("bench.reporting.report", "bench.paper.tables"),
        ("bench.records.statistics", "tabulate"),
        ("bench.data.loader", "bench.records.store"),
    ],
)
def test_a_broken_layer_is_noticed(module: str, other: str) -> None:
    assert offences(module, [other])


@pytest.mark.slow
@pytest.mark.parametrize("package", ["attacks", "augmentations"])
def test_the_methods_load_nothing_of_the_bench(package: str) -> None:
    code = (
        f"import sys, {package}; heavy = {{'mlflow', 'timm', 'matplotlib', 'sklearn', 'skimage', "
        "'scipy', 'click', 'albumentations', 'bench'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_line_starts_without_anything_heavy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from bench.cli import main; "
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0; "
        "assert CliRunner().invoke(main, ['run', '--help']).exit_code == 0; "
        "heavy = {'torch', 'mlflow', 'numpy', 'timm', 'scipy', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
