"""What the documentation says is so."""

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner
from torch.utils.data import TensorDataset

import attacks
import augmentations
from bench.cli import main
from bench.paper import tables

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands() -> list[str]:
    """Every bench command that a page shows, in blocks and in tables."""
    found = []
    for page in PAGES:
        for text in re.findall(r"`(bench [^`]+)`|^\$ (.+)$", page.read_text(), re.MULTILINE):
            for part in "".join(text).split("&&"):
                part = part.strip().removeprefix(".venv/bin/")
                if part.startswith("bench ") and "|" not in part and " / " not in part:
                    found.append(part)
    return list(dict.fromkeys(found))


def test_the_main_commands_are_shown_exactly_so() -> None:
    assert "bench run --aug advmask --model resnet18 --seeds 5" in commands()
    assert "bench attack-eval --eps 8/255" in commands()
    assert len(commands()) > 30


@pytest.mark.parametrize("command", commands())
def test_every_command_that_is_shown_can_be_typed(command: str) -> None:
    words = shlex.split(command)[1:]
    if "NAME" in words:  # stands for any
        return
    group: click.Command = main
    context = click.Context(main)
    while isinstance(group, click.Group) and words:
        name = words.pop(0)
        found = group.get_command(context, name)
        assert found is not None, f"{command}: there is no {name}"
        group = found
    group.make_context(command, words, resilient_parsing=False)


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in commands() if " run --aug" in c])
def test_every_run_that_is_shown_has_a_plan(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    result = CliRunner().invoke(main, [*shlex.split(command)[1:], "--dry-run"])
    missing = "cifar" in command or ".py:" in command
    assert result.exit_code == (4 if missing else 0), result.output


def test_every_method_and_experiment_is_named() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    for name in [*augmentations.BUILTIN, *attacks.BUILTIN, *tables.EXPERIMENTS]:
        assert f"`{name}`" in text, f"the documentation does not name {name}"


class Weighted(torch.nn.Module):
    """Two classes, told apart by a weighted sum of the pixels."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weights = torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(1))
        score = 5 * ((images - 0.5) * weights).sum((1, 2, 3))
        return torch.stack([-score, score], 1)


@pytest.mark.slow
def test_the_library_can_be_used_as_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_RESULTS", raising=False)
    code = "\n".join(re.findall(r"```python\n(.+?)```", README, re.DOTALL)[:2])
    images = torch.randint(121, 135, (6, 3, 8, 8), generator=torch.Generator().manual_seed(0)) / 255
    network = Weighted()
    labels = network(images).argmax(1)
    names: dict[str, Any] = {"network": network, "images": images, "labels": labels}
    names["dataset"] = TensorDataset(images, labels)
    exec(compile(code, "library", "exec", dont_inherit=True), names)
    assert "cutout" in capsys.readouterr().out
    assert names["outcome"].rows["jsma"].success > 0
    assert len(names["train_set"]) == len(names["points"]) == len(names["erased"]) == 6
    assert names["train_set"][0][0].shape == (3, 8, 8)


def test_the_readme_stays_short() -> None:
    assert len(README.splitlines()) < 250
