"""Policies change images as their papers do, beside any augmentation and mixing."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import click.testing
import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from augmentations import BUILTIN, KeepAugment
from augmentations.advmask import AdvMask
from augmentations.ipf import paste_square
from bench.cli import main
from bench.data import catalog, image_operations, loader, mixing, policies, seeds
from bench.data.augmix import AugMix
from bench.data.dataset import Dataset
from bench.data.loader import Loader
from bench.data.splits import Split, part
from bench.models import networks
from bench.points.guides import needed
from bench.training import after_crop, loop
from bench.training.recipes import Recipe

IDS = torch.arange(64)
PLAIN = ["autoaugment", "trivialaugment", "fast-autoaugment", "randaugment"]
WHOLE = [*PLAIN, "augmix"]


def draw_images(n: int = 64, channels: int = 3, side: int = 16) -> Tensor:
    stream = seeds.generator(0, "images")
    return torch.randint(256, (n, channels, side, side), generator=stream, dtype=torch.uint8)


@pytest.mark.parametrize("name", WHOLE)
def test_what_happens_to_an_image_depends_on_seed_epoch_and_id_only(name: str) -> None:
    policy, images = policies.build(name, side=16), draw_images()
    whole = policy.apply(images, 1, 2, IDS)
    order = torch.randperm(64, generator=seeds.generator(0, "order"))
    for some in order.split(7):
        assert torch.equal(policy.apply(images[some], 1, 2, IDS[some]), whole[some])
    for other in (policy.apply(images, 2, 2, IDS), policy.apply(images, 1, 3, IDS)):
        assert not torch.equal(other, whole)


@pytest.mark.parametrize("name", list(policies.NAMES))
def test_the_global_generator_and_the_stored_images_stay_as_they_were(name: str) -> None:
    images, state = draw_images(), torch.get_rng_state()
    before = images.clone()
    done = policies.build(name, side=16).apply(images, 0, 0, IDS)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, before)
    assert not torch.equal(done, images)


@pytest.mark.parametrize("name", WHOLE)
def test_grey_images_work_and_other_channels_are_refused(name: str) -> None:
    policy = policies.build(name, side=8)
    assert policy.apply(draw_images(channels=1, side=8), 0, 0, IDS).shape == (64, 1, 8, 8)
    with pytest.raises(ValueError, match="the images have 4 channels"):
        policy.apply(draw_images(channels=4), 0, 0, IDS)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("autoaugment", 25),
        ("trivialaugment", 14 * 31),
        ("fast-autoaugment", 493),
        ("randaugment", 14 * 14),
    ],
)
def test_the_published_sequences_are_drawn_uniformly(name: str, count: int) -> None:
    policy = policies.build(name, side=32)
    assert len(policy.sequences) == count
    draws = torch.stack([policy._draws(0, 0, i) for i in range(5000)])
    observed = (draws[:, 0] * count).long().bincount(minlength=count)
    expected = 5000 / count
    chi_square = float(((observed - expected) ** 2 / expected).sum())
    assert abs(chi_square - (count - 1)) < 4 * (2 * (count - 1)) ** 0.5


def test_trivialaugment_has_each_of_its_14_operations_31_times() -> None:
    policy = policies.build("trivialaugment", side=32)
    operations = Counter(step.operation for (step,) in policy.sequences)
    assert set(operations.values()) == {31}
    assert len(operations) == 14


@pytest.mark.parametrize("side", [8, 32, 224])
def test_randaugment_has_every_pair_of_operations_at_torchvisions_level(side: int) -> None:
    policy, theirs = policies.build("randaugment", side=side), v2.RandAugment()
    pairs = {(one.operation, other.operation) for one, other in policy.sequences}
    assert len(pairs) == len(policy.sequences) == 14**2
    assert (theirs.num_ops, theirs.magnitude, theirs.num_magnitude_bins) == (2, 9, 31)
    for step in {step for pair in policy.sequences for step in pair}:
        magnitudes, signed = theirs._AUGMENTATION_SPACE[step.operation]
        values = magnitudes(31, side, side)
        assert step.magnitude == (0.0 if values is None else float(values[9]))
        assert (step.signed, step.probability) == (signed, 1.0)


def test_an_operation_happens_with_its_probability_and_either_sign() -> None:
    step = image_operations.Step("TranslateX", 0.7, 3.0, signed=True)
    policy = image_operations.Policy(((step,),), fill=0)
    images = torch.zeros(4000, 1, 1, 9, dtype=torch.uint8)
    images[..., 4] = 255
    done = policy.apply(images, 0, 0, torch.arange(4000))
    shares = (done[:, 0, 0] > 0).float().mean(0)
    torch.testing.assert_close(
        shares[[1, 4, 7]], torch.tensor([0.35, 0.3, 0.35]), atol=0.03, rtol=0
    )


@pytest.mark.parametrize("name", PLAIN)
def test_a_batch_gives_what_torchvision_gives_image_by_image(name: str) -> None:
    policy, images = policies.build(name, side=16), draw_images(200)
    done = policy.apply(images, 0, 0, torch.arange(200))
    operate = v2.AutoAugment()._apply_image_or_video_transform
    checked = 0
    for i, image in enumerate(images):
        draws = policy._draws(0, 0, i).tolist()
        steps = policy.sequences[int(draws[0] * len(policy.sequences))]
        for k, step in enumerate(steps):
            applied, sign = draws[1 + 4 * k : 3 + 4 * k]
            if applied >= step.probability or step.operation == "Cutout":
                continue
            magnitude = -step.magnitude if step.signed and sign < 0.5 else step.magnitude
            image = operate(image, step.operation, magnitude, "nearest", {Tensor: [policy.fill]})
        if all(step.operation != "Cutout" for step in steps):
            assert torch.equal(done[i], image)
            checked += 1
    assert checked > 100


@pytest.mark.parametrize("side", [8, 32, 224])
def test_the_steps_have_torchvisions_magnitudes(side: int) -> None:
    rotate, translate = policies.build("autoaugment", side=side).sequences[1]
    assert rotate == ("Rotate", 0.7, pytest.approx(2 / 9 * 30), True)
    assert translate == ("TranslateX", 0.3, pytest.approx(150 / 331 * side), True)
    shifts = [
        step.magnitude
        for (step,) in policies.build("trivialaugment", side=side).sequences
        if step.operation == "TranslateY"
    ]
    assert max(shifts) == min(32, side)


def test_fast_autoaugment_maps_levels_to_its_ranges() -> None:
    contrast, translate = policies.build("fast-autoaugment", side=32).sequences[0]
    assert contrast == (
        "Contrast",
        pytest.approx(0.83207, abs=1e-5),
        pytest.approx(-0.9 + 1.8 * 0.498843, abs=1e-5),
        False,
    )
    assert translate == (
        "TranslateX",
        pytest.approx(0.41850, abs=1e-5),
        pytest.approx(32 * (-0.45 + 0.9 * 0.394023), abs=1e-4),
        True,
    )


def test_fast_autoaugments_cutout_paints_a_clipped_square() -> None:
    place = torch.tensor([[0.5, 0.5], [0.0, 0.99]], dtype=torch.float64)
    done = image_operations._cutout(torch.zeros(2, 3, 10, 10, dtype=torch.uint8), 4.0, place)
    painted = done.eq(torch.tensor(image_operations.TINT).reshape(3, 1, 1)).all(1)
    wanted = torch.zeros(2, 10, 10, dtype=torch.bool)
    wanted[0, 3:8, 3:8] = True
    wanted[1, 0:5, 7:10] = True
    assert torch.equal(painted, wanted)


@pytest.mark.parametrize(
    ("name", "near"),
    [("autoagument", "autoaugment"), ("trivialaugment+cutuot", "trivialaugment+cutout")],
)
def test_an_unknown_policy_is_refused_with_the_nearest_name(name: str, near: str) -> None:
    with pytest.raises(
        ValueError, match=f"there is no policy '.*': did you mean '{near}'".replace("+", r"\+")
    ):
        policies.build(name, side=32)


@pytest.mark.parametrize(
    ("typed", "data", "resolved"),
    [
        ("autoaugment.published", "cifar10", "autoaugment+cutout"),
        ("autoaugment.published", "cifar100(train=2000)", "autoaugment+cutout"),
        ("autoaugment.published", "svhn", "autoaugment(found_for='svhn')+cutout"),
        ("autoaugment.published", "imagenet", "autoaugment(found_for='imagenet')"),
        ("trivialaugment.published", "cifar10", "trivialaugment+cutout"),
        ("trivialaugment.published", "imagenet", "trivialaugment"),
        ("fast-autoaugment.published", "cifar100", "fast-autoaugment+cutout"),
        ("randaugment.published", "cifar10", "randaugment(operations=3, magnitude=5)+cutout"),
        ("randaugment.published", "cifar100", "randaugment(magnitude=14)+cutout"),
        ("randaugment.published", "flowers102", "randaugment"),
        ("randaugment.published(magnitude=7)", "cifar100", "randaugment(magnitude=7)+cutout"),
        ("randaugment(operations=2, magnitude=9)", "cifar10", "randaugment"),
        ("keep-autoaugment-low", "cifar10", "keep-autoaugment-low(squares='inside')"),
        ("keep-autoaugment(squares='clipped')+cutout", "cifar10", "keep-autoaugment+cutout"),
        ("augmix", "cifar10", "augmix"),
    ],
)
def test_a_typed_policy_becomes_the_text_of_a_recipe(typed: str, data: str, resolved: str) -> None:
    assert policies.resolve(typed, data) == resolved
    if typed.endswith(".published"):
        one, other = (policies.build(text, side=32, data=data) for text in (typed, resolved))
        assert one == other


def test_every_published_policy_is_named_and_says_whether_cutout_follows() -> None:
    published = [name for name in policies.NAMES if name.endswith(".published")]
    assert [name.partition(".")[0] for name in published] == [
        "autoaugment", "trivialaugment", "fast-autoaugment", "randaugment"
    ]  # fmt: skip
    for name in published:
        assert policies.build(name, side=32, data="cifar10").cutout == 16
        assert policies.build(name, side=224, data="imagenet").cutout is None
        with pytest.raises(ValueError, match=r"knows if Cutout follows: remove \+cutout"):
            policies.build(f"{name}+cutout", side=32)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trivialaugment(level=3)", "trivialaugment has no option 'level'; it has none"),
        ("randaugment(m=3)", "randaugment has no option 'm'; it has: operations, magnitude"),
        ("randaugment(operations=4)", "operations is 4: it must be an integer from 1 to 3"),
        ("randaugment(magnitude=9.0)", r"magnitude is 9\.0: it must be an integer from 0 to 30"),
        ("randaugment(magnitude=31)", "magnitude is 31: it must be an integer from 0 to 30"),
        ("randaugment(magnitude=[9])", r"magnitude is \[9\]: it must be an integer from 0 to 30"),
        ("autoaugment(found_for='mnist')", "'mnist': it must be one of 'cifar10', 'svhn', 'imag"),
        ("keep-autoaugment(squares='out')", "it must be one of 'inside', 'clipped'"),
        ("randaugment(3)", "write it as name"),
    ],
)
def test_an_unknown_option_of_a_policy_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        policies.build(text, side=32)
    with pytest.raises(ValueError, match=message):
        policies.resolve(text, "cifar10")


@pytest.mark.parametrize("found_for", ["svhn", "imagenet"])
def test_autoaugment_has_torchvisions_tables_of_other_datasets(found_for: str) -> None:
    policy = policies.build(f"autoaugment(found_for={found_for!r})", side=32)
    table = v2.AutoAugment(v2.AutoAugmentPolicy(found_for))
    assert [[(step.operation, step.probability) for step in pair] for pair in policy.sequences] == [
        [(name, probability) for name, probability, _ in pair] for pair in table._policies
    ]


def test_randaugment_has_as_many_operations_of_the_magnitude_as_it_is_told() -> None:
    policy, theirs = (
        policies.build("randaugment(operations=3, magnitude=14)", side=32),
        (v2.RandAugment(3, 14)),
    )
    assert len(policy.sequences) == 14**3
    assert {len(steps) for steps in policy.sequences} == {3}
    magnitudes, _ = theirs._AUGMENTATION_SPACE["Rotate"]
    wanted = float(magnitudes(31, 32, 32)[14])
    assert {
        step.magnitude for steps in policy.sequences for step in steps if step.operation == "Rotate"
    } == {wanted}


def test_augmix_blends_what_torchvision_gives_for_the_same_chains() -> None:
    policy, images = policies.build("augmix", side=16), draw_images(40)
    assert isinstance(policy, AugMix)
    done = policy.apply(images, 0, 0, torch.arange(40))
    operate = v2.AutoAugment()._apply_image_or_video_transform
    bilinear = v2.AugMix().interpolation  # as in the released code
    for i, image in enumerate(images):
        draws = policy._draws(0, 0, i).tolist()
        weights = [-math.log(1 - each) for each in draws[1:4]]
        blend = draws[0] * image.double()
        for k, weight in enumerate(weights):
            chain = draws[4 + 7 * k : 11 + 7 * k]
            changed = image
            for j in range(int(chain[0] * 3) + 1):
                (step,) = policy.sequences[int(chain[1 + 2 * j] * len(policy.sequences))]
                negative = step.signed and chain[2 + 2 * j] < 0.5
                magnitude = -step.magnitude if negative else step.magnitude
                changed = operate(changed, step.operation, magnitude, bilinear, {Tensor: [0]})
            blend = blend + (1 - draws[0]) * weight / sum(weights) * changed.double()
        assert (done[i].double() - blend).abs().max() <= 0.501


def test_augmix_has_the_operations_and_the_weights_of_its_paper() -> None:
    policy = policies.build("augmix", side=32)
    theirs = v2.AugMix(all_ops=False)
    operations = Counter(step.operation for (step,) in policy.sequences)
    assert operations == Counter(dict.fromkeys(theirs._PARTIAL_AUGMENTATION_SPACE, 3))
    assert not {"Brightness", "Color", "Contrast", "Sharpness"} & set(operations)
    rotations = sorted(step.magnitude for (step,) in policy.sequences if step.operation == "Rotate")
    assert rotations == pytest.approx([0, 30 / 9, 60 / 9])
    draws = torch.stack([policy._draws(0, 0, i) for i in range(4000)])
    weights = -torch.log1p(-draws[:, 1:4])
    weights /= weights.sum(1, keepdim=True)
    # Dirichlet(1, 1, 1): mean 1/3 and variance 1/18 each; Beta(1, 1): uniform
    torch.testing.assert_close(weights.mean(0), torch.full((3,), 1 / 3).double(), atol=0.02, rtol=0)
    torch.testing.assert_close(weights.var(0), torch.full((3,), 1 / 18).double(), atol=4e-3, rtol=0)
    quartiles = draws[:, 0].quantile(torch.tensor([0.25, 0.5, 0.75]).double())
    torch.testing.assert_close(
        quartiles, torch.tensor([0.25, 0.5, 0.75]).double(), atol=0.03, rtol=0
    )


def test_the_names_tell_what_follows_a_policy() -> None:
    assert policies.build("autoaugment", side=32).cutout is None
    assert policies.build("autoaugment+cutout", side=32).cutout == 16
    assert policies.build("trivialaugment+cutout", side=8).cutout == 4
    kinds = [policies.build(name, side=32).keep for name in policies.NAMES if "keep" in name]
    assert kinds == ["full", "low", "early", "early-low"]
    plain = policies.build("autoaugment", side=32)
    assert policies.build("keep-autoaugment", side=32).sequences == plain.sequences


@pytest.mark.parametrize("name", PLAIN)
def test_ipf_policies_paste_by_points_and_include_cutout(name: str) -> None:
    plain = policies.build(name, side=32)
    for data, side, length in (("cifar10", 32, 16), ("cifar100(train=20)", 32, 8), ("x", 64, 32)):
        policy = policies.build(f"ipf-{name}", side=side, data=data)
        assert policy.points
        assert (policy.length, policy.cutout) == (length, side // 2)
    assert policies.build(f"ipf-{name}", side=32).sequences == plain.sequences
    assert not plain.points
    with pytest.raises(ValueError, match=r"includes Cutout: remove \+cutout"):
        policies.build(f"ipf-{name}+cutout", side=32)


def test_a_square_with_many_points_is_pasted_from_the_original_after_crop_and_flip() -> None:
    n, side = 200, 16
    stored = draw_images(n, side=side)
    guide = torch.rand(n, 1, side, side, generator=seeds.generator(0, "points")) < 0.2
    stored[:, :1] = guide * 255  # the red channel shows the points
    policy = replace(policies.build("ipf-autoaugment", side=side), cutout=None)
    loader = Loader(
        Split(stored, torch.zeros(n).long()),
        batch_size=50,
        seed=2,
        padding=3,
        flip=True,
        device="cpu",
        policy=policy,
        guide=guide,
        guided=True,
    )
    plain = networks.Normalised(nn.Flatten(), torch.zeros(1), torch.ones(1))
    pasted = 0
    for step, batch in enumerate(loader.epoch(0, 1.0)):
        assert batch.guide is not None
        assert batch.originals is not None
        assert torch.equal(batch.guide, batch.originals[:, :1])
        done = after_crop.finish(policy, plain, batch, torch.zeros(3), (2, 0, step))
        kept = paste_square(done, batch.guide, seeds.generator(2, "keep", 0, step), 8)
        assert torch.equal(done, torch.where(kept, batch.originals, batch.images))
        pasted += int((done != batch.images).flatten(1).any(1).sum())
    assert pasted > n / 2


def test_a_policy_or_a_mix_that_wants_points_says_so() -> None:
    split = Split(draw_images(4), torch.zeros(4).long())
    settings = {"batch_size": 2, "seed": 0, "padding": 0, "flip": False, "device": "cpu"}
    with pytest.raises(ValueError, match="the policy or the mix needs a guide: one map of points"):
        Loader(split, guided=True, **settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="does not fit"):
        Loader(split, guided=True, guide=torch.zeros(4, 1, 8, 8), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["policy", "mix"])
def test_recipes_with_an_ipf_policy_or_mix_need_the_points(field: str) -> None:
    name = {"policy": "ipf-autoaugment", "mix": "ipf-cutmix"}[field]
    for augmentation in ("none", "cutout", "keepaugment", "advmask"):
        job = Recipe(augmentation=BUILTIN[augmentation](), **{field: name})  # type: ignore[arg-type]
        assert needed(job) == "attack"
        assert needed(replace(job, guide="random")) == "random"
    assert needed(Recipe(**{field: name.removeprefix("ipf-")})) is None  # type: ignore[arg-type]
    assert needed(Recipe(augmentation=BUILTIN["keepaugment"]())) is None
    assert needed(Recipe(augmentation=BUILTIN["ipf-has"]())) == "attack"


@pytest.mark.slow
def test_keepaugment_keeps_its_saliency_beside_a_policy_with_points(digits: Dataset) -> None:
    guide = torch.ones(len(digits.train), 1, 8, 8, dtype=torch.bool)
    job = replace(recipe("ipf-randaugment", None), augmentation=KeepAugment.preset("digits", 8))
    other = replace(job, policy="randaugment+cutout")
    trained = [loop.train(one, 0, digits, guide=guide) for one in (job, other)]
    assert all(0 < loss < 10 for loss in losses(trained[0]))
    assert losses(trained[0]) != losses(trained[1])


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return catalog.load("digits(train=80)")


def recipe(policy: str | None, mix: str | None) -> Recipe:
    return Recipe(
        data="digits(train=80)",
        model="resnet8",
        augmentation=AdvMask.preset("digits", 8),
        policy=policy,
        mix=mix,
        epochs=2,
        batch_size=32,
        padding=1,
    )


def losses(trained: loop.Trained) -> list[float]:
    return [entry["loss"] for entry in trained.curve]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "mix"),
    [
        *((policy, None) for policy in policies.NAMES),
        *((policy, mix) for policy in (None, "autoaugment+cutout") for mix in mixing.NAMES),
        ("keep-autoaugment", "cutmix"),
        ("keep-autoaugment-early-low", "mixup"),
        ("ipf-randaugment", "ipf-cutmix"),
    ],
)
def test_every_policy_and_mix_trains_with_advmask(
    policy: str | None, mix: str | None, digits: Dataset
) -> None:
    guide = torch.rand(len(digits.train), 1, 8, 8, generator=seeds.generator(0, "guide")) < 0.2
    trained = loop.train(recipe(policy, mix), 0, digits, guide=guide)
    assert len(trained.curve) == 2
    assert all(0 < loss < 10 for loss in losses(trained))


@pytest.mark.slow
def test_a_policy_with_an_early_head_continues_bit_for_bit(digits: Dataset, tmp_path: Path) -> None:
    guide = torch.ones(len(digits.train), 1, 8, 8, dtype=torch.bool)
    job = recipe("keep-autoaugment-early+cutout", "cutmix")
    whole = loop.train(job, 0, digits, guide=guide)
    asked = iter([False] * 3 + [True])
    with pytest.raises(loop.Stopped):
        loop.train(job, 0, digits, guide=guide, checkpoint=tmp_path, stop=lambda: next(asked))
    continued = loop.train(job, 0, digits, guide=guide, checkpoint=tmp_path)
    assert losses(continued) == losses(whole)


def test_the_loader_changes_images_by_id_ahead_of_crop_and_flip(digits: Dataset) -> None:
    policy = policies.build("keep-autoaugment", side=8)
    split = part(digits.train, 80)
    settings = {"seed": 3, "flip": True, "device": "cpu"}
    loader = Loader(split, batch_size=16, padding=0, policy=policy, **settings)
    wanted = policy.apply(split.images, 3, 1, split.ids)
    for epoch in (0, 1):
        batches = list(loader.epoch(epoch, 0.5))
    flips = loader.moves(1).flips
    for batch in batches:
        assert batch.originals is not None
        for image, original, id_ in zip(batch.images, batch.originals, batch.ids, strict=True):
            place = int((split.ids == id_).nonzero())
            for found, stored in ((image, wanted[place]), (original, split.images[place])):
                stored = stored.flip(-1) if flips[place] else stored
                torch.testing.assert_close(found, stored / 255)


def test_the_command_line_refuses_and_lists_policies_and_mixes() -> None:
    runner = click.testing.CliRunner()
    for option, near in (("--policy", "autoaugment"), ("--mix", "cutmix")):
        result = runner.invoke(main, ["run", option, near + "e", "--dry-run"])
        assert result.exit_code == 2
        assert f"did you mean '{near}'" in result.stderr
    listed = runner.invoke(main, ["list", "policies"]).stdout
    assert [line.split()[0] for line in listed.splitlines()] == list(policies.NAMES)
    assert "cutmix" in runner.invoke(main, ["list", "mixes"]).stdout


def test_a_loader_changes_images_in_blocks_of_any_size_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = draw_images(50)
    found = []
    for block, size in ((16, 0), (16, 20 * images[0].numel()), (1024, 2**25)):
        monkeypatch.setattr(loader, "BLOCK", block)
        monkeypatch.setattr(loader, "CHANGED", size)
        built = Loader(
            Split(images, torch.zeros(50, dtype=torch.long)), batch_size=50, seed=0, padding=0,
            flip=False, device="cpu", augmentation=BUILTIN["none"](),
            policy=policies.build("trivialaugment", side=16),
        )  # fmt: skip
        found.append(built._change(3))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
