"""Judge adversarial images that others made by the same rules as those of attacks run here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, cast

import torch
from jaxtyping import Int
from torch import Tensor, nn

from bench.data.dataset import Dataset
from bench.data.floats import as_floats
from bench.execution.machine import machine
from bench.execution.progress import Progress
from bench.execution.workspace import Workspace
from bench.files import atomic, tensor_files
from bench.files.checksums import key
from bench.models.networks import check_logits
from bench.records.record import Record
from bench.robustness import evaluation
from bench.robustness.judge import Aim, CorrectImages, Verdict, goals, judge, predict
from bench.robustness.metrics import Outcome, curve, summarise
from bench.robustness.results import problems
from bench.robustness.submissions import ABOUT, TASK, About, Submission, template
from bench.training.victims import Victim

SOURCE: Final = "re-judged from images"
"""The label ``source`` of records of submissions; those of attacks run here have none."""

LONGEST_VICTIM = 200
"""The most characters of a victim model's name in submission.json."""

OURS = ("forwards", "backwards", "forwards_max", "backwards_max", "seconds_per_image", "errors")
"""Metrics that cannot be read from images."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a submission is judged by.

    Attributes:
        eps: Largest change of a value, as a fraction; ``"1"`` is no bound.
        aim: ``"untargeted"``, or how target classes are chosen.
        seed: Seed of random targets.
        images: Number of images under attack: the first that the victim model classifies correctly,
            as `bench.robustness.judge.correct_images` chooses them. None: those submitted.
    """

    eps: str
    aim: Aim
    seed: int
    images: int | None


def terms(
    about: About | None,
    data: str,
    *,
    eps: Fraction | None = None,
    aim: str | None = None,
    seed: int | None = None,
    images: int | None = None,
) -> Terms:
    """Return what a submission is judged by: what it says, and what is asked for.

    Args:
        about: What submission.json says, if there is one.
        data: Name of the dataset.
        eps: Largest change of a value that is asked for.
        aim: Goal that is asked for.
        seed: Seed that is asked for.
        images: Number of images that is asked for.

    Raises:
        ValueError: Both say something, and not the same, or a seed is asked for that draws nothing.
    """
    said = about or About(format=1, attack="unnamed")
    if said.data and said.data != data:
        raise ValueError(f"{ABOUT} is about {said.data}, but --data is {data}")
    asked = {
        "eps": None if eps is None else str(eps),
        "goal": aim,
        "seed": seed,
        "images": images,
    }
    stated = {name: getattr(said, name) for name in asked if name in said.model_fields_set}
    if stated.get("eps") is not None:
        stated["eps"] = str(Fraction(stated["eps"]))
    for name, value in stated.items():
        if asked[name] is not None and asked[name] != value and value is not None:
            option = {"goal": "--target"}.get(name, f"--{name}")
            raise ValueError(
                f"{ABOUT} says that {name} is {value}, but {option} is {asked[name]}; leave it out"
            )
    chosen = stated | {name: value for name, value in asked.items() if value is not None}
    goal = chosen.get("goal") or "untargeted"
    if seed is not None and goal != "random":
        raise ValueError(f"--seed {seed} has no effect on the goal {goal}: leave it out")
    return Terms(
        eps=chosen.get("eps") or "1",
        aim=cast("Aim", goal),
        # of the same images there is one record, whatever a submission says
        seed=(chosen.get("seed") or 0) if goal == "random" else 0,
        images=chosen.get("images"),
    )


@dataclass(frozen=True)
class Judged:
    """What was found about a submission.

    Attributes:
        record: Its record.
        terms: What it was judged by.
        ids: Indices of the n images under attack.
        verdict: What the judge found for each of them.
        missing: Images under attack that were not submitted; they count as failures.
        extra: Submitted images that are not under attack, or that the victim model gets wrong
            without any attack; they do not count.
        unchanged: Submitted images that are the originals.
        almost: Submitted images of which most pixels differ from the original by less than 1e-6.
    """

    record: Record
    terms: Terms
    ids: list[int]
    verdict: Verdict
    missing: list[int]
    extra: list[int]
    unchanged: list[int]
    almost: list[int]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values, with one object per image."""
        verdict, missing = self.verdict, set(self.missing)
        names = ("success", "misclassified", "success_8bit", "outside_box", "beyond_eps")
        sizes = ("l0_pixels", "l0_elements", "l2", "linf")
        columns = {name: getattr(verdict, name).tolist() for name in (*names, *sizes)}
        columns["not_submitted"] = [each in missing for each in self.ids]
        return {
            "attack": self.record.labels["attack"],
            "source": SOURCE,
            "victim": self.record.labels["victim"],
            "data": self.record.labels["data"],
            "goal": self.terms.aim,
            **vars(self.terms),  # with the goal as "aim" too, which programs may read
            "images": len(self.ids),
            "missing": self.missing,
            "extra": self.extra,
            "unchanged": self.unchanged,
            "stored": self.terms.images is not None,
            "metrics": dict(self.record.metrics),
            "per_image": [
                {"index": each, **{name: _finite(of[place]) for name, of in columns.items()}}
                for place, each in enumerate(self.ids)
            ],
        }


def _finite(value: bool | int | float) -> bool | int | float | None:
    """A value of JSON, which has none for infinity and what is no number."""
    return value if math.isfinite(value) else None


def rejudge(
    submission: Submission,
    rules: Terms,
    victim: Victim,
    workspace: Workspace,
    progress: Progress,
) -> Judged:
    """Judge the images of a submission by new forward passes.

    Args:
        submission: The images.
        rules: What they are judged by.
        victim: The victim model.
        workspace: Where victim models and datasets are, and the device.
        progress: Shows the training of a victim model that is trained here.

    Raises:
        ValueError: The submission names another victim model, or the victim model classifies too
            few images correctly.
    """
    if submission.about is not None:
        check_victim(submission.about.victim, victim)
    data = workspace.dataset(victim.data)
    network, chosen = images_under_attack(submission, rules, victim, workspace, progress)
    place = {index: row for row, index in enumerate(chosen.ids.tolist())}
    given = submission.ids.tolist()
    rows = torch.tensor(
        [row for row, index in enumerate(given) if index in place], dtype=torch.long
    )
    there = torch.tensor([place[index] for index in given if index in place])
    adversarial = chosen.images.clone()
    if len(rows):
        adversarial[there.to(adversarial.device)] = submission.images[rows].to(adversarial)
    (goal,) = goals(rules.aim, chosen, rules.seed)
    verdict = judge(
        network, chosen.images, chosen.labels, goal, adversarial, float(Fraction(rules.eps))
    )
    sent = torch.zeros(len(chosen.ids), dtype=torch.bool)
    if len(there):
        sent[there] = True
    tiny = (adversarial - chosen.images).abs().amax(1).flatten(1).cpu()
    almost = ((tiny > 0) & (tiny < 1e-6)).float().mean(1) > 0.5
    return Judged(
        record=_record(submission, rules, rows, victim, data, chosen, verdict, workspace.device),
        terms=rules,
        ids=chosen.ids.tolist(),
        verdict=verdict,
        missing=chosen.ids[~sent].tolist(),
        extra=[index for index in given if index not in place],
        unchanged=chosen.ids[sent & (verdict.l0_elements == 0)].tolist(),
        almost=chosen.ids[almost].tolist(),
    )


def check_victim(said: str, victim: Victim) -> None:
    """Refuse a submission that names another network, file of weights or content of weights.

    Args:
        said: What submission.json says: the name of a victim model in records, which `prepare` may
            have cut, or some of its words; a file may have a folder before it or lack its ending.
        victim: The victim model that is used.
    """
    own = {*victim.name.split(), victim.model.partition("@")[0], victim.model.removeprefix("timm:")}
    if victim.path is not None:
        own |= {*victim.path.name.split(), *victim.path.stem.split()}
    other = [word for word in said.split() if not {word, word.rpartition("/")[2]} & own]
    if other and said != victim.name[:LONGEST_VICTIM]:
        raise ValueError(
            f"{ABOUT} says that victim is {said}, but --victim and --model give {victim.name}; "
            "give the one that it names, or correct the file"
        )


def images_under_attack(
    submission: Submission | None,
    rules: Terms,
    victim: Victim,
    workspace: Workspace,
    progress: Progress,
) -> tuple[nn.Module, CorrectImages]:
    """Load the victim model and the images that it is attacked on.

    Args:
        submission: Its images are used where the rules name no number.
        rules: What the submission is judged by.
        victim: The victim model.
        workspace: Where victim models and datasets are, and the device.
        progress: Shows the training of a victim model that is trained here.

    Raises:
        ValueError: The victim model classifies too few images correctly.
    """
    if rules.images is not None or submission is None:
        return evaluation.load_victim(victim, rules.images or 1, workspace, progress)
    network = victim.load(workspace, progress)
    test, ids = workspace.dataset(victim.data).test, submission.ids
    images = as_floats(test.images[ids], workspace.device)
    labels = test.labels[ids].to(workspace.device)
    logits = predict(network, images)
    check_logits(logits, len(images))
    right = (logits.argmax(1) == labels).nonzero()[:, 0]
    if not len(right):
        raise ValueError(
            f"the victim model classifies none of the {len(ids)} originals correctly; check "
            "--model, --mean and --std, and that the indices are those of the test images"
        )
    return network, CorrectImages(
        ids[right.cpu()], images[right], labels[right], logits[right], len(ids)
    )


def _record(
    submission: Submission,
    rules: Terms,
    rows: Int[Tensor, " m"],
    victim: Victim,
    data: Dataset,
    chosen: CorrectImages,
    verdict: Verdict,
    device: str,
) -> Record:
    about, n = submission.about, len(chosen.ids)
    nothing = torch.zeros(n, dtype=torch.long)
    outcome = Outcome(verdict, nothing, nothing, 0.0, 0.0, None, {})
    metrics = summarise([outcome])
    metrics = {name: value for name, value in metrics.items() if name not in OURS}
    if submission.passes is not None and len(rows):  # those of images that count
        metrics["passes_reported"] = float(submission.passes[rows].double().mean())
    labels = {
        "attack": about.attack if about else "unnamed",
        "hyperparameters": "",
        "eps": rules.eps,
        "goal": rules.aim,
        "bounded": "yes",
        "role": "sparse",
        "victim": victim.name,
        "model": victim.model,
        "data": victim.data,
        "source": SOURCE,
    }
    for name in ("authors", "link", "note"):
        if about and (text := getattr(about, name)):
            labels[name] = text
    job = {
        "submission": submission.digest,
        "submitted": labels["attack"],
        "victim": victim.name,
        "data": f"{data.name} {data.digest}",
        "eps": rules.eps,
        "aim": rules.aim,
        "images": n,
    }
    return Record(
        kind="attack",
        key=key(job | {"chosen": rules.images is not None}),
        seed=rules.seed,
        labels=labels,
        metrics=metrics | {"correct": chosen.correct},
        job=job,
        machine=machine(device),
        message=problems(outcome),
        curve=curve(verdict),
    )


def prepare(
    folder: Path, rules: Terms, victim: Victim, workspace: Workspace, progress: Progress
) -> list[Path]:
    """Write what a submission starts from: the images to attack, and a submission.json.

    Args:
        folder: Where ``task.safetensors`` (indices, images, labels, and targets of a targeted goal)
            and ``submission.json`` are written; a submission.json that exists is left as it is.
        rules: What the submission will be judged by.
        victim: The victim model.
        workspace: Where victim models and datasets are, and the device.
        progress: Shows the training of a victim model that is trained here.

    Returns:
        The paths of the two files.

    Raises:
        ValueError: The rules name no number of images.
    """
    if rules.images is None:
        raise ValueError("give the number of images to attack, such as --images 100")
    _, chosen = images_under_attack(None, rules, victim, workspace, progress)
    (goal,) = goals(rules.aim, chosen, rules.seed)
    tensors = {"indices": chosen.ids, "images": chosen.images.cpu(), "labels": chosen.labels.cpu()}
    if goal.targeted:
        tensors["targets"] = goal.labels.cpu()
    about = template(
        "my-attack",
        victim=victim.name[:LONGEST_VICTIM],
        data=victim.data,
        goal=rules.aim,
        seed=rules.seed,
        eps=rules.eps,
        images=rules.images,
    )
    task, said = folder / TASK, folder / ABOUT
    atomic.write(task, tensor_files.pack(tensors, {}))
    if not said.exists():
        atomic.write(said, about)
    return [task, said]
