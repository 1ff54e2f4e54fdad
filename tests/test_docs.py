"""The documentation site is complete, and its code runs."""

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
import yaml

import bench
from bench.cli import main

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
CODE = re.compile(r"^```python\n(.+?)^```$", re.DOTALL | re.MULTILINE)

INCLUDED = re.compile(r"^--8<--\n(.+)\n--8<--$", re.MULTILINE)

TUTORIALS = [
    "index.md",
    "guide/methods.md",
    "tutorials/compare.md",
    "tutorials/training.md",
    "tutorials/attack.md",
    "tutorials/points.md",
]
"""The pages whose Python code is run, each from its first block to its last."""


def names(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS)
def test_the_code_of_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_RESULTS", raising=False)
    text = INCLUDED.sub(lambda found: (ROOT / found[1]).read_text(), (DOCS / page).read_text())
    blocks = CODE.findall(text)
    assert blocks
    scope: dict[str, object] = {"__name__": "tutorial"}
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"{page}, block {number}", "exec", dont_inherit=True), scope)


def test_every_page_is_in_the_navigation_once() -> None:
    def pages(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        parts = entry if isinstance(entry, list) else list(entry.values())  # type: ignore[attr-defined]
        return [page for part in parts for page in pages(part)]

    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert sorted(pages(settings["nav"])) == sorted(map(names, PAGES))


def test_the_map_names_every_room_and_only_files_that_exist() -> None:
    text = (DOCS / "architecture.md").read_text()
    rooms = [path.parent.name for path in (ROOT / "bench").glob("*/__init__.py")]
    drawn = re.search(r"```text\n(.+?)```", text, re.DOTALL)
    assert drawn is not None
    words = set(re.findall(r"^\w+", drawn[1], re.MULTILINE))
    assert [room for room in rooms if room not in words] == []
    paths = re.findall(r"`((?:bench|augmentations|attacks|tests)/[\w/.]*)`", text)
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", "README.md"])
def test_a_page_outside_the_site_names_only_files_that_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    found = re.findall(r"`((?:bench|augmentations|attacks|tests|docs)/[\w/.]*)`", text)
    found += re.findall(r"\]\(([\w/.]+)\)", text)
    assert [path for path in found if not (ROOT / path).exists()] == []


def test_the_version_is_the_same_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None
    assert first[1] == version


def test_a_checkout_without_installation_has_a_version_too() -> None:
    code = (
        "from importlib import metadata\n"
        "def missing(name): raise metadata.PackageNotFoundError(name)\n"
        "metadata.version = missing\n"
        "import bench; print(bench.__version__)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "0+unknown"
    assert re.fullmatch(r"\d+\.\d+\.\d+", bench.__version__)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site, which is strict: a warning fails."""
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder


@pytest.mark.slow
def test_no_page_of_the_site_loads_anything_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) >= len(PAGES)
    for page in pages:
        for tag in re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", page.read_text()):
            assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", tag), (page.name, tag)
        assert 'class="mermaid"' not in page.read_text()  # whose script is on another server
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//|@import", style.read_text()), style.name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bench", "attacks", "augmentations"])
def test_the_reference_shows_every_public_name(site: Path, name: str) -> None:
    package = importlib.import_module(name)
    html = (site / "reference" / f"{name}.html").read_text()
    assert "<blockquote" not in html  # an example that is not shown as code
    shown = set(re.findall(rf'id="{name}\.(\w+)"', html))
    assert [each for each in package.__all__ if each not in shown] == []


@pytest.mark.slow
def test_the_reference_shows_every_command_and_option(site: Path) -> None:
    html = (site / "reference" / "commands.html").read_text()
    context = click.Context(main)
    for name in main.list_commands(context):
        assert f'id="bench-{name}"' in html
        command = main.get_command(context, name)
        assert command is not None
        for option in command.params:
            assert option.opts[0] in html or isinstance(option, click.Argument)
