"""Jobs that are submitted through submitit, in its local mode."""

import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jobs import leave, refuse, square
from test_executors import UNSENT, through

from bench.cli import main
from bench.errors import Failed
from bench.execution.executors import on_node
from bench.execution.options import ExecutionOptions
from bench.execution.slurm import Submitted

submitit = pytest.importorskip("submitit")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def jobs_can_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{here}:{here.parent}")


def test_submitted_jobs_give_the_same(tmp_path: Path) -> None:
    found = through(Submitted(2, cluster="local"), square, [3, 1, 4], tmp_path)
    assert found == {0: 9, 1: 1, 2: 16}
    assert list((tmp_path / "cache/submitted").iterdir())


def test_what_a_submitted_job_raises_is_raised(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="job 2 is bad: give another"):
        through(Submitted(1, cluster="local"), refuse, [1, 2, 3], tmp_path)


@pytest.mark.parametrize(("work", "said"), [*UNSENT, (leave, r"called sys.exit\(3\) during a job")])
def test_what_cannot_be_sent_or_exits_is_told_and_not_submitted_again(
    work: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(Failed, match=said):
        through(Submitted(1, cluster="local"), work, [3], tmp_path)


def test_without_slurm_the_executor_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"there is no SLURM here \(no command srun\)"):
        through(Submitted(2), square, [1], tmp_path)
    done = CliRunner().invoke(main, ["run", "--executor", "slurm", "--gpus", "0.5"])
    assert "SLURM gives whole GPUs; take 1 or more" in done.output
    built: Any = ExecutionOptions(executor="slurm", jobs=4, gpus=1.0, threads=3).build("cpu")
    assert (built.count, built.gpus, built.threads) == (4, 1, 3)
    here = ExecutionOptions().workspace(tmp_path)
    assert [on_node(here, gpus).device for gpus in (1, 0.5, 0)] == ["cuda", "cuda", here.device]


def test_code_of_ones_own_is_known_on_the_node(tmp_path: Path) -> None:
    from bench import registry

    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n\n@dataclass(frozen=True)\nclass Own:\n"
        "    width: int = 2\n    def mask(self, images, generator, guide=None):\n"
        "        return images\n\n    def __mul__(self, other):\n        return self.width * 3\n"
    )
    text = registry.admit("augmentations", f"{tmp_path / 'mine.py'}:Own")
    job = registry.build("augmentations", f"{text}(width=5)")
    assert through(Submitted(1, cluster="local"), square, [job], tmp_path) == {0: 15}


def test_code_that_is_another_one_on_the_node_is_one_line_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench import registry
    from bench.files import code

    monkeypatch.setattr(code, "_sources", {})  # later tests send their own

    path = tmp_path / "mine.py"
    path.write_text(
        "from dataclasses import dataclass\n\n@dataclass(frozen=True)\nclass Own:\n"
        "    def mask(self, images, generator, guide=None):\n        return images\n"
    )
    job = registry.build("augmentations", registry.admit("augmentations", f"{path}:Own"))
    path.write_text("changed = True\n")
    with pytest.raises(ValueError, match=r"mine\.py has changed"):
        through(Submitted(1, cluster="local"), square, [job], tmp_path)


def test_a_job_that_slurm_refuses_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (
        ("srun", ""),
        ("sbatch", "echo 'sbatch: error: no such partition' >&2; exit 1"),
    ):
        (commands / name).write_text(f"#!/bin/sh\n{text}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    with pytest.raises(Failed, match=r"SLURM refuses the job: .*no such partition") as caught:
        through(Submitted(1), square, [1], tmp_path)
    assert "\n" not in str(caught.value)
