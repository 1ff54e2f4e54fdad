"""The commands that are broken: each of the command line, at its smallest."""

from __future__ import annotations

from dataclasses import dataclass

SMALL = ["--data", "digits(train=120, test=60)", "--threads", "1"]
RUN = ["run", "--aug", "cutout", "--model", "resnet8", "--seeds", "2", "--epochs", "3", *SMALL]
DIGITS = ["--data", "digits(train=200)", "--threads", "1"]
POINTS = ["points", "build", "--attack", "sigma-zero(steps=30, eps=0.5)", *DIGITS]
FAST = [*POINTS[2:], "--examples", "8", "--exact-images", "4"]
ATTACKS = ["attack-eval", "--eps", "0.5", "--images", "70", *DIGITS]
ATTACKS += ["--attack", "sigma-zero(steps=20)", "--attack", "jsma"]
DECIDED = ["run", "--aug", "none", "--aug", "cutout", "--until", "decided", "--within", "50"]
DECIDED += ["--max-seeds", "5", "--model", "resnet8", "--epochs", "1", *SMALL]
EXPORT = ["points", "export", "{folder}/points.npz", *POINTS[2:]]
JUDGE = ["judge", "{folder}/mine", "--eps", "0.5", "--images", "20", *DIGITS]
SPEED = ["--model", "resnet8", "--threads", "1", "--data", "digits(train=120, test=60)"]
BEGINNINGS: dict[str, tuple[str | None, list[str]]] = {
    "run": (None, RUN),
    "points": (None, POINTS),
    "attacks": (None, ATTACKS),
    "decided": (None, DECIDED),
    "exported points": ("points", EXPORT),
    "prepared images": ("attacks", [*JUDGE, "--prepare"]),
}
"""Folders that commands begin with: the folder that each itself begins with, and its command.

Prepared images are submitted as they are, as an attack that changes nothing would.
"""


@dataclass(frozen=True)
class Case:
    """A command that is broken.

    Attributes:
        title: How the table calls it.
        begin: A folder of `BEGINNINGS`; None: an empty one.
        words: The command; ``{folder}`` stands for its results folder.
        thorough: Whether it is killed at each kind of system call, and not at three in all.
    """

    title: str
    begin: str | None
    words: list[str]
    thorough: bool = False


CASES = [
    Case("run", None, RUN, thorough=True),
    Case("attack-eval", None, ATTACKS, thorough=True),
    Case("points build", None, POINTS, thorough=True),
    Case("run --until decided", None, DECIDED),
    Case("run table8", None, ["run", "table8", "--scale", "smoke", *SMALL]),
    Case("train-robust", None, ["train-robust", "--method", "linf-at", "--epochs", "1", *SMALL]),
    Case(
        "search",
        None,
        [
            "search",
            "--aug",
            "cutout",
            "--budget",
            "2",
            "--seeds",
            "1",
            "--model",
            "resnet8",
            *SMALL,
        ],
    ),
    Case("plan", "decided", ["plan"]),
    Case(
        "plan --calibrate",
        None,
        [
            *("plan", "--calibrate", "--methods", "1", "--max-seeds", "5", "--studies", "100"),
            *("--output", "{folder}/power.png"),
        ],
    ),
    Case("points build --fast", "points", ["points", "build", "--fast", *FAST]),
    Case("points compare", "points", ["points", "compare", "--images", "4", *FAST]),
    Case("points show", "points", ["points", "show", *POINTS[2:]]),
    Case("points export", "points", EXPORT),
    Case(
        "points import",
        "exported points",
        ["points", "import", "{folder}/points.npz", "--name", "mine", *DIGITS[:2]],
    ),
    Case("judge --prepare", "attacks", [*JUDGE, "--prepare"]),
    Case("judge", "prepared images", JUDGE),
    Case("leaderboard", "attacks", ["leaderboard"]),
    Case("tables", "decided", ["tables", "differences", "--format", "csv"]),
    Case("tables coverage", "points", ["tables", "coverage", *DIGITS[:2]]),
    Case("occlusion", "run", ["occlusion", "--threads", "1"]),
    Case("figures", "decided", ["figures", "differences"]),
    Case("figures passes", "attacks", ["figures", "passes"]),
    Case("report", "run", ["report"]),
    Case("speed masks", None, ["speed", "masks", "--batch-size", "8", "--side", "8", *SPEED]),
    Case("speed input", None, ["speed", "input", *SPEED]),
    Case("speed epochs", None, ["speed", "epochs", *SPEED]),
    Case(
        "speed attacks",
        "attacks",
        [
            *("speed", "attacks", "--images", "4", "--rounds", "1"),
            *("--attack", "sigma-zero(steps=2)", *DIGITS),
        ],
    ),
    Case("speed start", None, ["speed", "start"]),
    Case("list", "run", ["list", "runs"]),
    Case("status", "run", ["status"]),
    Case("status --reap", "run", ["status", "--reap"]),
    Case("track rebuild", "run", ["track", "rebuild"]),
    Case("export", "run", ["export", "{folder}/supplement.zip"]),
]
"""Every command, in the order of ``bench --help``; `test_faults` holds that none is left out."""
