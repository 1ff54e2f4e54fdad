"""What every built-in augmentation promises, and base's own arithmetic."""

import dataclasses
import importlib
import inspect
import pkgutil
from typing import Any, Literal, get_origin, get_type_hints

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

import augmentations
from augmentations import (
    BUILTIN,
    AdvMask,
    Augmentation,
    Cutout,
    Foreign,
    GridMask,
    HideAndSeek,
    Ramp,
    RandomErasing,
    delete,
    draw,
)

NAMES = sorted(BUILTIN)
DELETING = [name for name in NAMES if name != "none"]
GUIDED = [name for name in NAMES if BUILTIN[name]().wants]
SHAPES = st.tuples(
    st.integers(1, 5), st.sampled_from([1, 3]), st.integers(8, 40), st.integers(8, 40)
)
MEAN, STD = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.25, 0.2, 0.3])


def stream(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def guide_for(images: Tensor) -> Tensor:
    b, _, h, w = images.shape
    guide = torch.rand(b, 1, h, w, generator=stream(99))
    return guide * (guide < 0.3)


def masks(method: Augmentation, images: Tensor, seed: int = 0) -> Tensor:
    return method.mask(images, stream(seed), guide_for(images) if method.wants else None)


@pytest.mark.parametrize("name", NAMES)
@given(shape=SHAPES, seed=st.integers(0, 2**40))
def test_the_same_generator_gives_the_same_masks(
    name: str, shape: tuple[int, int, int, int], seed: int
) -> None:
    images = torch.rand(shape, generator=stream(1))
    method = BUILTIN[name].preset("cifar10", min(shape[2:]))
    before, state = images.clone(), torch.get_rng_state()
    guide = guide_for(images)
    kept = guide.clone()
    mask = method.mask(images, stream(seed), guide)
    assert mask.shape == (shape[0], 1, *shape[2:])
    assert mask.dtype == torch.bool
    assert torch.equal(mask, method.mask(torch.zeros_like(images), stream(seed), guide))
    assert torch.equal(images, before)
    assert torch.equal(guide, kept)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("fill", ["mean", "noise"])
@given(shape=SHAPES, density=st.sampled_from([0.0, 0.3, 1.0]))
def test_only_masked_pixels_change(
    fill: str, shape: tuple[int, int, int, int], density: float
) -> None:
    images = torch.rand(shape, generator=stream(1))
    mask = torch.rand(shape[0], 1, *shape[2:], generator=stream(2)) < density
    c = shape[1]
    before, state = images.clone(), torch.get_rng_state()
    out = delete(images, mask, mean=MEAN[:c], std=STD[:c], fill=fill, generator=stream(3))
    everywhere = mask.expand_as(images)
    assert torch.equal(out[~everywhere], images[~everywhere])
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)
    if fill == "mean":
        colour = MEAN[:c, None, None].expand_as(images)
        assert torch.equal(out[everywhere], colour[everywhere])
    else:
        assert (out[everywhere] != images[everywhere]).all()


def test_noise_is_standard_normal_once_normalised() -> None:
    images = torch.zeros(8, 3, 100, 100)
    mask = torch.rand(8, 1, 100, 100, generator=stream()) < 0.5
    out = delete(images, mask, mean=MEAN, std=STD, fill="noise", generator=stream())
    values = ((out - MEAN[:, None, None]) / STD[:, None, None])[mask.expand_as(out)]
    assert values.mean().abs() < 0.01
    assert (values.std() - 1).abs() < 0.01
    per_channel = [out[:, c][mask[:, 0]] for c in range(3)]
    for c, channel in enumerate(per_channel):
        assert (channel.mean() - MEAN[c]).abs() < 0.01
        assert (channel.std() - STD[c]).abs() < 0.01


@pytest.mark.parametrize("fill", ["mean", "noise"])
def test_gradients_pass_through_what_is_kept(fill: Any) -> None:
    images = torch.rand(2, 3, 4, 4, generator=stream()).requires_grad_()
    mask = torch.rand(2, 1, 4, 4, generator=stream()) < 0.5
    delete(images, mask, mean=MEAN, std=STD, fill=fill, generator=stream()).sum().backward()
    assert images.grad is not None
    assert torch.equal(images.grad, (~mask).float().expand_as(images))


def test_noise_needs_std_and_generator() -> None:
    images, mask = torch.zeros(1, 3, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="needs the dataset's std and a generator"):
        delete(images, mask, mean=MEAN, fill="noise")


@pytest.mark.parametrize("name", DELETING)
@pytest.mark.parametrize("side", [8, 32, 64])
@pytest.mark.parametrize("data", ["cifar10", "cifar100", "digits", "imagenet"])
def test_presets_delete_something_and_not_nearly_everything(
    name: str, side: int, data: str
) -> None:
    mask = masks(BUILTIN[name].preset(data, side), torch.zeros(400, 1, side, side))
    ratio = mask.float().mean((1, 2, 3))
    assert 0.04 < ratio.mean() < 0.5
    assert ratio.quantile(0.99) < 0.85
    assert (ratio == 0).float().mean() < (0.3 if name in ("has", "ipf-has") else 0.1)


@pytest.mark.parametrize("name", DELETING)
def test_images_of_a_batch_do_not_share_one_mask(name: str) -> None:
    mask = masks(BUILTIN[name](), torch.zeros(16, 3, 32, 32))
    assert len(mask.flatten(1).unique(dim=0)) > 1


@pytest.mark.parametrize("name", NAMES)
def test_large_oblong_images_work(name: str) -> None:
    images = torch.zeros(1, 3, 200, 120)
    assert masks(BUILTIN[name].preset("flowers102", 120), images).shape == (1, 1, 200, 120)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_repr_is_the_expression_that_rebuilds_it(name: str, data: str) -> None:
    method = BUILTIN[name].preset(data, 48)
    assert isinstance(method, Augmentation)
    assert eval(repr(method), vars(augmentations)) == method
    assert dataclasses.replace(method) == method


@pytest.mark.parametrize("name", NAMES)
def test_methods_that_want_a_guide_say_so(name: str) -> None:
    method = BUILTIN[name]()
    if method.wants:
        with pytest.raises(ValueError, match=f"{type(method).__name__} needs a guide: "):
            method.mask(torch.zeros(2, 3, 8, 8), stream())
    else:
        method.mask(torch.zeros(2, 3, 8, 8), stream())


@pytest.mark.parametrize("name", GUIDED)
@pytest.mark.parametrize("bad", [float("nan"), -1.0, float("inf")])
def test_guides_are_finite_and_not_negative(name: str, bad: float) -> None:
    guide = torch.zeros(2, 1, 32, 32)
    guide[1, 0, 3, 3] = bad
    with pytest.raises(ValueError, match="finite values, at least 0"):
        BUILTIN[name]().mask(torch.zeros(2, 3, 32, 32), stream(), guide)


@pytest.mark.parametrize("name", GUIDED)
@pytest.mark.usefixtures("unchecked")
def test_guides_have_the_images_size(name: str) -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 1, 32, 32\), .* shape \(2, 1, 8, 32\)"):
        BUILTIN[name]().mask(torch.zeros(2, 3, 32, 32), stream(), torch.zeros(2, 1, 8, 32))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"name": "cutout", "length": 1}, "length is 1: it must be at least 2"),
        ({"name": "keepaugment", "length": 0}, "length is 0"),
        ({"name": "keepaugment", "quantile": 1.1}, "quantile is 1.1"),
        ({"name": "ipf-cutout", "length": 1}, "length is 1: it must be at least 2"),
        ({"name": "ipf-random-erasing", "quantile": -0.1}, "quantile is -0.1: it must be"),
        ({"name": "ipf-has", "probability": 2.0}, "probability is 2.0"),
        ({"name": "ipf-has", "length": 0}, "length is 0"),
        ({"name": "ipf-gridmask", "ratio": 0.0}, "ratio is 0.0"),
        ({"name": "ipf-gridmask", "quantile": 1.5}, "quantile is 1.5"),
        ({"name": "has", "sizes": (0,)}, r"sizes is \(0,\): give sides in pixels"),
        ({"name": "has", "probability": float("nan")}, "probability is nan"),
        ({"name": "gridmask", "period": (32, 24)}, r"period is \(32, 24\): it must be \(low, high"),
        ({"name": "gridmask", "ratio": 1.0}, "ratio is 1.0"),
        ({"name": "gridmask", "rotation": 0}, "rotation is 0"),
        ({"name": "random-erasing", "area": (0.4, 1.5)}, "area is"),
        ({"name": "random-erasing", "aspect": 0.0}, "aspect is 0.0"),
        ({"name": "advmask", "length": (0, 5)}, "length is"),
        ({"name": "advmask", "ratio": (0.4, 0.2)}, "ratio is"),
        ({"name": "advmask", "overlap": -0.1}, "overlap is -0.1"),
        ({"name": "advmask", "length": 15}, r"length is 15: it must be \(low, high\)"),
        ({"name": "advmask", "length": (2.5, 15.5)}, "length is 2.5: it must be a whole number"),
        ({"name": "cutout", "length": 15.5}, "length is 15.5: it must be a whole number"),
        ({"name": "gridmask", "period": (24.0, 32.0)}, "period is 24.0: it must be a whole number"),
        ({"name": "gridmask", "rotation": 1.5}, "rotation is 1.5: it must be a whole number"),
        ({"name": "has", "sizes": (2.5,)}, "sizes is 2.5: it must be a whole number"),
        ({"name": "grid-dropout", "unit": 3.7}, "unit is 3.7: it must be a whole number"),
        ({"name": "ipf-cutout", "length": 15.5}, "length is 15.5: it must be a whole number"),
        ({"name": "cutout", "length": 10**20}, "length is 10*: .* at most 1000000 pixels"),
        ({"name": "keepaugment", "length": 10**20}, "length is 10*: .* at most 1000000 pixels"),
        ({"name": "ipf-cutout", "length": 10**20}, "length is 10*: .* at most 1000000 pixels"),
        ({"name": "has", "sizes": (0, 10**20)}, "sizes is 10*: .* at most 1000000 pixels"),
        ({"name": "grid-dropout", "unit": 10**20}, "unit is 10*: .* at most 1000000 pixels"),
        ({"name": "gridmask", "period": (2, 10**20)}, "period is .* <= high <= 1000000"),
        ({"name": "has", "sizes": 4}, "sizes is 4: give sides in pixels"),
        ({"name": "has", "probability": "0.5"}, "probability is '0.5': it must be a number"),
        ({"name": "gridmask", "ratio": "a"}, "ratio is 'a': it must be a number"),
        ({"name": "random-erasing", "aspect": "a"}, "aspect is 'a': it must be a number"),
        ({"name": "advmask", "ratio": ("a", "b")}, r"ratio is \('a', 'b'\): it must be"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_hyperparameters_are_named_with_their_value(
    wrong: dict[str, object], text: str
) -> None:
    name = str(wrong.pop("name"))
    with pytest.raises(ValueError, match=text):
        BUILTIN[name](**wrong)


@pytest.mark.parametrize("progress", [50.0, -1.0, float("nan")])
def test_progress_is_a_share_of_the_training(progress: float) -> None:
    with pytest.raises(ValueError, match="give the share of the training that is done"):
        draw(AdvMask(), torch.zeros(1, 3, 8, 8), stream(), progress=progress)


@pytest.mark.usefixtures("unchecked")
def test_a_share_that_is_a_plain_number_is_named() -> None:
    wrong: Any = Cutout(share=0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Cutout: share is 0.5: write it as Ramp\(0.5\)"):
        draw(wrong, torch.zeros(1, 3, 8, 8), stream())


@pytest.mark.parametrize("name", sorted(set(BUILTIN) - {"none"}))
def test_a_guide_on_the_processor_serves_images_elsewhere(name: str) -> None:
    """The device "meta" stands for a GPU; it computes nothing but says where tensors are."""
    moved: dict[str, Any] = {"cutout": Cutout, "random-erasing": RandomErasing}
    moved |= {"gridmask": GridMask, "has": HideAndSeek}
    method = moved[name](points="seek") if name in moved else BUILTIN[name]()
    if method.wants is None:
        return
    try:
        mask = method.mask(
            torch.zeros(2, 3, 16, 16, device="meta"), stream(), torch.ones(2, 1, 16, 16)
        )
    except NotImplementedError:  # values are needed, on the images' device
        return
    assert mask.device.type == "meta"


@pytest.mark.parametrize("bad", [-0.1, 1.5, float("nan"), "a"])
@pytest.mark.usefixtures("unchecked")
def test_a_share_is_a_fraction(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"low is .*: it must be a (fraction from 0 to 1|number)"):
        Ramp(bad)


def test_the_paper_s_ramp_masks_six_million_images_in_300_epochs() -> None:
    ramp = Ramp(0.0, 0.8)
    epochs = [50_000 * ramp.at(epoch / 300) for epoch in range(1, 301)]
    assert round(epochs[0]) == 133
    assert round(epochs[-1]) == 40_000
    assert sum(epochs) == pytest.approx(6.02e6)


def test_draw_masks_the_share_that_is_due() -> None:
    images = torch.zeros(4000, 1, 8, 8)
    method = Cutout(4, share=Ramp(0.0, 0.8))
    for progress, due in ((0.0, 0.0), (0.5, 0.4), (1.0, 0.8)):
        mask = draw(method, images, stream(), progress=progress)
        assert mask.flatten(1).any(1).float().mean() == pytest.approx(due, abs=0.03)
    assert torch.equal(
        draw(Cutout(4), images, stream()), draw(Cutout(4), images, stream(), progress=0.3)
    )


WORDS = {
    "mode": "choose 'squares' or 'lines'",
    "fill": "choose 'mean' or 'noise'",
    "points": "choose 'ignore', 'seek' or 'avoid'",
    "squares": "choose 'inside' or 'clipped'",
    "saliency": "choose 'full', 'low', 'early' or 'early-low'",
}
ERASERS: dict[str, Any] = {name: cls() for name, cls in BUILTIN.items()} | {"foreign": Foreign(abs)}


@pytest.mark.parametrize(
    ("name", "option"),
    [
        (name, option)
        for name, method in ERASERS.items()
        if name != "none"  # it has no options
        for option in WORDS
        # whose mode is passed on to GridMask, where the type checks of the tests come first
        if hasattr(method, option) and (name, option) != ("ipf-gridmask", "mode")
    ],
)
@pytest.mark.parametrize("word", ["square", "Mean", "Seek", ""])
def test_every_augmentation_refuses_words_that_it_does_not_know(
    name: str, option: str, word: str
) -> None:
    method = dataclasses.replace(ERASERS[name])
    object.__setattr__(method, option, word)  # past the type checks of the tests
    with pytest.raises(ValueError, match=f"^{option} is {word!r}: {WORDS[option]}$"):
        method.__post_init__()


def test_every_option_that_is_a_word_is_among_those_tested() -> None:
    for method in ERASERS.values():
        hints = get_type_hints(type(method))
        words = {
            field.name
            for field in dataclasses.fields(method)
            if get_origin(hints[field.name]) is Literal
        }
        assert words <= set(WORDS)


def test_pixels_are_not_filled_with_what_nobody_knows() -> None:
    images, mask = torch.ones(1, 3, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool)
    unchecked: Any = inspect.unwrap(delete)  # past the type checks of the tests
    with pytest.raises(ValueError, match=r"^fill is 'Mean': choose 'mean' or 'noise'$"):
        unchecked(images, mask, mean=MEAN, std=STD, fill="Mean", generator=stream())


@pytest.mark.parametrize("name", DELETING)
@pytest.mark.usefixtures("unchecked")
def test_masks_are_of_batches(name: str) -> None:
    guide = torch.ones(1, 8, 8) if BUILTIN[name]().wants else None
    with pytest.raises(ValueError, match=r"give a batch|not enough values to unpack"):
        BUILTIN[name]().mask(torch.zeros(3, 8, 8), stream(), guide)


@pytest.mark.usefixtures("unchecked")
def test_colours_are_tensors() -> None:
    images, mask = torch.ones(1, 3, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="mean and std must be tensors, one value per channel"):
        delete(images, mask, mean=(0.0, 0.0, 0.0))  # type: ignore[arg-type]


def test_every_class_is_in_the_package_and_documented_with_an_example() -> None:
    found = {
        value
        for info in pkgutil.iter_modules(augmentations.__path__)
        if not info.name.startswith("_")
        for value in vars(importlib.import_module(f"augmentations.{info.name}")).values()
        if isinstance(value, type) and value.__module__ == f"augmentations.{info.name}"
    }
    assert {cls.__name__ for cls in found} - {"Indexed", "Samples", "Draws", "Movable"} <= set(
        augmentations.__all__
    )
    for name in set(augmentations.__all__) - {"Fill", "Guide", "Images", "Mask"}:  # types of values
        value = getattr(augmentations, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            text = inspect.getdoc(value) or ""
            assert ">>> " in text, name
            bare = dataclasses.is_dataclass(value) and not dataclasses.fields(value)
            assert "Args:" in text or bare or value is Augmentation, name
    assert {cls.__name__ for cls in BUILTIN.values()} <= set(augmentations.__all__)
