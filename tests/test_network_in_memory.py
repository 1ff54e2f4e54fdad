"""A network in memory is attacked and judged as the networks of a study are."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from brightness import Brightness, draw_images
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import attacks
import bench
from bench.studies.attack_designs import fraction

ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Painter(attacks.BaseAttack):
    """Makes an image much brighter or darker everywhere, wherever it may act."""

    eps: float | None = 0.5
    unit = "pixels"

    def passes(self, shape: tuple[int, ...]) -> int:
        return 1

    def _attack(
        self, model: nn.Module, images: Tensor, goal: attacks.Goal, generators: object
    ) -> Tensor:
        return torch.where(images > 0.5, images - 0.4, images + 0.4)


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    return draw_images()


def test_a_network_in_memory_is_attacked_and_judged(images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    study = bench.evaluate_attacks(
        ["jsma", attacks.SigmaZero(steps=60)], model=Brightness(), images=x, labels=y, eps=0.5
    )
    assert set(study.rows) == {"jsma", "sigma-zero(steps=60)"}
    for name, row in study.rows.items():
        assert row.adversarial is not None
        assert row.adversarial.shape == x.shape
        changed = (row.adversarial != x).any(1).flatten(1).sum(1)
        broken = Brightness()(row.adversarial).argmax(1) != y
        assert row.success == broken.double().mean(), name
        assert row.l0_pixels_mean == changed[broken].double().mean()
        assert float((row.adversarial - x).abs().max()) <= 0.5 + 1e-6
    # the mean of 16 pixels moves over a half by one pixel of at most 0.48 for each 0.03
    assert study.rows["jsma"].success == 1
    assert study.table().rows
    assert "jsma" in study._repr_html_()
    targeted = bench.evaluate_attacks(
        "jsma", model=Brightness(), images=x, labels=y, eps=0.5, targeted=True
    )
    assert targeted.records[0].labels["goal"] == "random"


def test_an_attack_and_its_judge_compute_in_full_float32(images: tuple[Tensor, Tensor]) -> None:
    """On CUDA PyTorch rounds convolutions to TF32 by default, and a device alone moves success."""
    seen = []

    class Watched(Brightness):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(torch.backends.cudnn.allow_tf32)
            return super().forward(x)

    before = torch.backends.cudnn.allow_tf32
    bench.evaluate_attacks("jsma", model=Watched(), images=images[0], labels=images[1], eps=0.5)
    assert before  # PyTorch's default, or this test would prove nothing
    assert not any(seen)
    assert torch.backends.cudnn.allow_tf32 is before


def test_an_attack_with_a_network_of_its_own_is_judged_in_memory_and_not_stored(
    images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    class Map(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean(1, keepdim=True)

    x, y = images
    attack = attacks.GreedyFool(distortion=Map())
    study = bench.evaluate_attacks([attack], model=Brightness(), images=x, labels=y, eps=0.5)
    assert list(study.rows) == ["greedyfool(distortion=Map)"]
    assert study.rows["greedyfool(distortion=Map)"].success == 1
    assert study.records[0].labels["eps"] == "1/2"
    with pytest.raises(ValueError, match=r"distortion=Map\) has a network as an option"):
        bench.evaluate_attacks([attack], data="digits(train=60, test=40)", results=tmp_path)
    assert not (tmp_path / "records.jsonl").exists()


def test_a_network_in_memory_takes_batches_of_the_size_that_was_asked_for(
    images: tuple[Tensor, Tensor],
) -> None:
    sizes = set()

    class Watched(Brightness):
        def forward(self, x: Tensor) -> Tensor:
            sizes.add(len(x))
            return super().forward(x)

    x, y = images
    found = bench.evaluate_attacks(
        "sigma-zero(steps=5)", model=Watched(), images=x, labels=y, eps=0.5, batch_size=3
    )
    assert 3 in sizes
    usual = bench.evaluate_attacks(
        "sigma-zero(steps=5)", model=Brightness(), images=x, labels=y, eps=0.5
    )
    assert torch.equal(*(each.rows["sigma-zero(steps=5)"].adversarial for each in (found, usual)))


def test_what_means_nothing_for_a_network_in_memory_is_refused(
    images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    x, y = images
    message = "nothing is stored: remove mean, results, fresh"
    with pytest.raises(ValueError, match=message):
        bench.evaluate_attacks(
            "jsma",
            model=Brightness(),
            images=x,
            labels=y,
            mean=(0.5,),
            results=tmp_path,
            fresh=True,
        )


def test_a_network_that_changes_its_images_in_place_is_refused_and_they_stay(
    images: tuple[Tensor, Tensor],
) -> None:
    class Normalised(Brightness):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sub_(0.1))

    x, y = images
    before = x.clone()
    with pytest.raises(ValueError, match="changes the images that it is given in place"):
        bench.evaluate_attacks("jsma", model=Normalised(), images=x, labels=y, eps=0.5)
    assert torch.equal(x, before)


@pytest.mark.parametrize("eps", [float("inf"), float("nan")])
def test_an_eps_that_is_no_number_is_refused_by_name(
    eps: float, images: tuple[Tensor, Tensor]
) -> None:
    x, y = images
    with pytest.raises(ValueError, match=f"eps is {eps}: it must be above 0 and at most 1"):
        bench.evaluate_attacks("jsma", model=Brightness(), images=x, labels=y, eps=eps)


def test_images_that_the_network_gets_wrong_are_not_attacked(
    images: tuple[Tensor, Tensor],
) -> None:
    x, y = images
    wrong = y.clone()
    wrong[0] = 1
    study = bench.evaluate_attacks("jsma", model=Brightness(), images=x, labels=wrong, eps=0.5)
    row = study.rows["jsma"]
    assert row.adversarial is not None
    assert torch.equal(row.adversarial[0], x[0])
    assert study.records[0].metrics["images"] == 5
    assert study.records[0].metrics["correct"] == pytest.approx(5 / 6)


def test_pixels_outside_the_region_stay_and_changing_them_is_no_success(
    images: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(attacks.BUILTIN, "painter", Painter)
    x, y = images
    region = torch.zeros(1, 1, *x.shape[2:], dtype=torch.bool)
    region[..., :2, :] = True
    study = bench.evaluate_attacks(
        ["jsma", "painter"], model=Brightness(), images=x, labels=y, eps=0.5, region=region
    )
    row = study.rows["jsma"]
    assert row.adversarial is not None
    assert not ((row.adversarial != x) & ~region).any()
    (painted,) = (each for each in study.records if each.labels["attack"] == "painter")
    assert painted.metrics["success"] == 0
    assert painted.metrics["outside_region"] == len(x)
    assert painted.message == f"{len(x)} outside the region"


def test_each_image_has_the_target_that_was_given(images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    study = bench.evaluate_attacks(
        "jsma", model=Brightness(), images=x, labels=y, eps=0.5, targets=1 - y
    )
    found = study.rows["jsma"].adversarial
    assert found is not None
    assert torch.equal(Brightness()(found).argmax(1), 1 - y)
    assert study.records[0].labels["goal"] == "given"


def test_targets_and_regions_that_do_not_fit_are_refused_in_one_line(
    images: tuple[Tensor, Tensor],
) -> None:
    x, y = images
    every = torch.ones(len(x), 1, *x.shape[2:], dtype=torch.bool)
    for given, text in [
        ({"targets": y}, "the target of image 0 is its own class, 0: choose another one"),
        ({"targets": 1 - y[:2]}, "targets have shape (2,) for 6 images: give one class for each"),
        ({"targets": y + 7}, "targets are in [7, 8], but the network has 2 classes, from 0"),
        ({"region": every[:, :, 1:]}, "the region is torch.bool of shape (6, 1, 3, 4): give"),
        ({"region": every[:5]}, "(5, 1, 4, 4): give torch.bool of shape (6, 1, 4, 4), or (1, 1, 4"),
        ({"targets": 1 - y, "target": "next"}, "target is 'next', but targets are given: remove"),
    ]:
        with pytest.raises(ValueError, match=re.escape(text)):
            bench.evaluate_attacks("jsma", model=Brightness(), images=x, labels=y, eps=0.5, **given)
    with pytest.raises(ValueError, match="targets and region are for a network in memory"):
        bench.evaluate_attacks("jsma", data="digits", region=every)


def test_a_region_has_a_row_for_each_image_and_not_for_each_correct_one(
    images: tuple[Tensor, Tensor],
) -> None:
    x, y = images
    wrong = y.clone()
    wrong[0] = 1
    region = torch.ones(len(x), 1, *x.shape[2:], dtype=torch.bool)
    for rows in (5, 3):
        with pytest.raises(ValueError, match=r"give torch.bool of shape \(6, 1, 4, 4\), or"):
            bench.evaluate_attacks(
                "jsma", model=Brightness(), images=x, labels=wrong, eps=0.5, region=region[:rows]
            )
    region[1:] = False
    study = bench.evaluate_attacks(
        "jsma", model=Brightness(), images=x, labels=wrong, eps=0.5, region=region
    )
    assert study.rows["jsma"].success == 0


def test_an_aim_that_is_none_is_refused_and_those_that_are_keep_their_names(
    images: tuple[Tensor, Tensor],
) -> None:
    given = {"model": Brightness(), "images": images[0], "labels": images[1], "eps": 0.5}
    for options, text in [
        ({"target": "given"}, "target is 'given', but no targets are: give targets"),
        ({"target": "untargeted", "targeted": True}, "target is 'untargeted', but targeted is"),
    ]:
        with pytest.raises(ValueError, match=text):
            bench.evaluate_attacks("jsma", **given, **options)
    for options, goal in [({"target": "next"}, "next"), ({"target": "untargeted"}, "untargeted")]:
        study = bench.evaluate_attacks("jsma", **given, **options)
        assert study.records[0].labels["goal"] == goal


def test_the_row_of_an_attack_that_ignores_eps_takes_no_others_place(
    images: tuple[Tensor, Tensor],
) -> None:
    study = bench.evaluate_attacks(
        ["sigma-zero(steps=20)", "sigma-zero(steps=20, eps=None)"],
        model=Brightness(), images=images[0], labels=images[1], eps=0.1,
    )  # fmt: skip
    assert list(study.rows) == ["sigma-zero(steps=20)", "sigma-zero(eps=None, steps=20)"]
    bound, free = (row.metrics["linf_max"] for row in study.rows.values())
    assert bound <= 0.1 + 1e-6 < free


@dataclasses.dataclass(frozen=True)
class Bright:
    """Follows the protocol alone: all pixels by ``eps`` away from the middle or towards it."""

    eps: float = 0.1
    up: bool = True

    def __call__(
        self, model: nn.Module, images: Tensor, goal: attacks.Goal, generator: object
    ) -> Tensor:
        return (images + self.eps * (1 if self.up else -1)).clamp(0, 1)


def test_an_attack_of_ones_own_is_an_object_in_memory_and_named_where_results_are_stored(
    images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    given = {"model": Brightness(), "images": images[0], "labels": images[1], "eps": 0.3}
    study = bench.evaluate_attacks([Bright(), Bright(up=False), Painter(), "jsma"], **given)
    assert list(study.rows) == ["Bright", "Bright(up=False)", "Painter", "jsma"]
    assert study.rows["Bright"].success == study.rows["Bright(up=False)"].success == 0.5
    assert study.rows["Bright"].metrics["linf_max"] == pytest.approx(0.3)
    assert study.records[1].labels["hyperparameters"] == "Bright(eps=0.3, up=False)"
    with pytest.raises(ValueError, match=r"Bright is not registered: .* text 'FILE.py:Bright'"):
        bench.evaluate_attacks([Bright()], data="digits(train=60, test=40)", results=tmp_path)
    assert not (tmp_path / "records.jsonl").exists()


def test_what_is_no_attack_is_refused_in_one_line(images: tuple[Tensor, Tensor]) -> None:
    @dataclasses.dataclass
    class Open:
        eps: float = 0.1

        def __call__(self, *given: object) -> None: ...

    @dataclasses.dataclass(frozen=True)
    class Needy:
        eps: float

        def __call__(self, *given: object) -> None: ...

    for attack, text in [
        (Bright, "Bright is a class: give an object, Bright()"),
        (Open(), "Open can be changed: write @dataclass(frozen=True) above the class"),
        (Needy(0.1), "Needy: give each of its fields a default"),
    ]:
        with pytest.raises(ValueError, match=re.escape(text)):
            bench.evaluate_attacks([attack], model=Brightness(), images=images[0], labels=images[1])


def test_numbers_of_other_types_are_taken_as_what_they_are(images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    given = {"model": Brightness(), "images": x, "batch_size": 4}
    study = bench.evaluate_attacks("jsma", labels=y.to(torch.uint8), eps=np.float32(0.3), **given)
    assert study.records[0].labels["eps"] == "3/10"
    for eps, text in [
        (np.float32(8 / 255), "8/255"),
        (np.float64(0.3), "3/10"),
        (np.int64(1), "1"),
        (Fraction(1, 3), "1/3"),
        (0.123, "123/1000"),
    ]:
        assert str(fraction(eps)) == text
    targets = (1 - y).to(torch.uint8)
    study = bench.evaluate_attacks("jsma", labels=y, targets=targets, eps=0.5, **given)
    assert study.rows["jsma"].success == 1
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"batch_size is {size}: it must be at least 1"):
            bench.evaluate_attacks("jsma", labels=y, **(given | {"batch_size": size}))


WRONG = [
    ({"target": "leastlikely"}, "there is no target 'leastlikely': did you mean 'least-likely'?"),
    ({"attacks": [3]}, "int is not an attack: it must be a dataclass with a method `__call__`"),
    ({"eps": None}, "eps is None: write it as 8/255 or 0.03"),
    ({"labels": [0] * 6}, "labels are a list: give a tensor"),
    ({"labels": "y.float()"}, "labels are of type torch.float32: give integers, one class per"),
    ({"targets": "1.0 - y"}, "targets are of type torch.float32: give integers, from 0"),
    ({"model": None, "images": 4, "target": "nexxt"}, "there is no target 'nexxt': did you mean"),
]


@pytest.mark.slow
def test_what_has_the_wrong_type_is_refused_in_one_line() -> None:
    """In a process without the type checks of the tests."""
    script = """
import ast, sys, bench
from brightness import Brightness, draw_images
x, y = draw_images()
for options in ast.literal_eval(sys.argv[1]):
    given = {"attacks": "jsma", "model": Brightness(), "images": x, "labels": y, **options}
    for name in ("labels", "targets"):
        if isinstance(given.get(name), str):
            given[name] = eval(given[name])
    try:
        bench.evaluate_attacks(**given)
        print("it ran")
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
"""
    run = subprocess.run(
        [sys.executable, "-c", script, repr([options for options, _ in WRONG])],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    for line, (_, text) in zip(run.stdout.splitlines(), WRONG, strict=True):
        assert line.startswith(f"ValueError: {text}")


class Shaped(nn.Module):
    """Ten logits of a random layer, brought into another form."""

    def __init__(self, form: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.layer, self.form = nn.Linear(48, 10), form

    def forward(self, images: Tensor) -> object:
        return self.form(self.layer(images.flatten(1)))


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (lambda z: z[:, :1], "the model has 1 class"),
        (lambda z: z[:, 0], "torch.float32 of shape"),
        (lambda z: z[:1], "shape (1, 10) for 4 images"),
        (lambda z: z[:, :, None], "it must return float logits of shape"),
        (lambda z: (z,), "the model returned a tuple"),
        (
            lambda z: z.argmax(1, keepdim=True) * torch.arange(10),
            "the model returned torch.int64 of shape",
        ),
    ],
)
def test_a_model_without_logits_is_refused_in_one_line(
    form: Callable[[Tensor], object], message: str, tmp_path: Path
) -> None:
    model, x = Shaped(form), torch.rand(4, 3, 4, 4)
    with pytest.raises(ValueError, match=re.escape(message)):
        bench.evaluate_attacks("jsma", model=model, images=x, labels=torch.zeros(4).long(), eps=0.5)
    data = TensorDataset(x, torch.zeros(4).long())
    with pytest.raises(ValueError, match=re.escape(message)):
        bench.find_points(model, data, results=tmp_path, quiet=True, attack="jsma")
