"""Batches: what is random about an image depends on its place, its epoch and the seed."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from augmentations import AdvMask, Cutout, GridMask, KeepAugment, Ramp, draw
from bench.data import crops, loader
from bench.data.floats import as_floats
from bench.data.loader import Loader, batches
from bench.data.seeds import generator
from bench.data.splits import Split

SIZE = (40, 3, 9, 7)  # not square: swapped axes must show


@pytest.fixture
def split() -> Split:
    images = torch.randint(256, SIZE, dtype=torch.uint8, generator=generator(0, "images"))
    return Split(images, torch.randint(5, (SIZE[0],), generator=generator(0, "labels")))


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "BLOCK", 16)


def build(split: Split, **changes: object) -> Loader:
    settings = {
        "batch_size": 7,
        "seed": 3,
        "padding": 2,
        "flip": True,
        "device": "cpu",
        "augmentation": Cutout(4),
    }
    return Loader(split, **(settings | changes))  # type: ignore[arg-type]


def collect(some: Loader, epoch: int = 0, progress: float = 1.0) -> dict[int, tuple[Tensor, ...]]:
    """Image, label and mask of each image, by its id."""
    found = {}
    for batch in some.epoch(epoch, progress):
        masks = [None] * len(batch.ids) if batch.mask is None else batch.mask
        for key, *rest in zip(batch.ids.tolist(), batch.images, batch.labels, masks, strict=True):
            found[key] = tuple(rest)
    return found


def same(one: dict[int, tuple[Tensor, ...]], other: dict[int, tuple[Tensor, ...]]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(a, b) for key in one for a, b in zip(one[key], other[key], strict=True)
    )


def test_floats_of_bytes_are_rounded_once_and_not_on_the_device() -> None:
    """CUDA multiplies by 1 / 255 instead, and an attack would seem to change every second value."""
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    right = torch.from_numpy((levels.numpy() / 255).astype(np.float32))  # from float64
    assert torch.equal(as_floats(levels), right)
    assert not torch.equal(levels.float() * torch.tensor(1 / 255), right)
    root = Path(__file__).parent.parent
    for path in [*root.glob("bench/**/*.py"), *root.glob("attacks/*.py")]:
        divided = re.findall(r"to\(.*device\)\.float\(\) / 255", path.read_text())
        assert not divided, f"{path}: use as_floats"


def test_an_image_and_its_mask_depend_on_no_batch_size(split: Split) -> None:
    small, large = (collect(build(split, batch_size=size), 2) for size in (3, 40))
    assert small.keys() | {*range(40)} == large.keys()
    assert same({key: large[key] for key in small}, small)


def test_seed_and_epoch_change_everything(split: Split) -> None:
    some = build(split)
    first = collect(some, 0)
    assert same(first, collect(build(split), 0))
    for other in (collect(some, 1), collect(build(split, seed=4), 0)):
        assert not all(torch.equal(first[key][0], other[key][0]) for key in first)
        assert not all(torch.equal(first[key][2], other[key][2]) for key in first)
    orders = [[b.ids.tolist() for b in some.epoch(epoch, 1.0)] for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]


def test_masks_drawn_ahead_are_those_of_a_fresh_start(split: Split) -> None:
    some = build(split, augmentation=GridMask(share=Ramp(0.0, 0.8)))
    ahead = [collect(some, epoch, (epoch + 1) / 3) for epoch in range(3)]
    fresh = [collect(build(split, augmentation=some.augmentation), 2, 1.0)]
    assert same(ahead[2], fresh[0])
    # an epoch that was not the one expected, as after a resumed run
    assert same(collect(some, 1, 2 / 3), ahead[1])


def test_masks_are_those_of_draw(split: Split) -> None:
    augmentation = Cutout(4, share=Ramp(0.0, 0.5))
    found = collect(build(split, augmentation=augmentation, batch_size=40), 5, 0.8)
    for block in range(3):
        ids = range(40)[block * 16 : (block + 1) * 16]
        expected = draw(
            augmentation,
            torch.rand(len(ids), *SIZE[1:]),
            generator(3, "masks", 5, block),
            progress=0.8,
        )
        assert torch.equal(torch.stack([found[key][2] for key in ids]), expected)


def test_the_share_follows_the_progress(split: Split) -> None:
    some = build(split, augmentation=Cutout(4, share=Ramp(0.0, 1.0)), batch_size=40)
    shares = [
        sum(bool(mask.any()) for _, _, mask in collect(some, 0, progress).values())
        for progress in (0.0, 0.5, 1.0)
    ]
    assert shares[0] == 0
    assert 8 < shares[1] < 32
    assert shares[2] == 40


def moved(image: Tensor, shift: Tensor, flip: Tensor) -> Tensor:
    """Slowly and plainly: where each pixel comes from."""
    _, h, w = image.shape
    result = torch.zeros_like(image)
    for y in range(h):
        for x in range(w):
            row, column = y + int(shift[0]), x + int(shift[1])
            if 0 <= row < h and 0 <= column < w:
                result[:, y, w - 1 - x if flip else x] = image[:, row, column]
    return result


@pytest.mark.parametrize("take", [crops.crop, crops._gather])
def test_crops_are_exact(split: Split, take: object) -> None:
    places = torch.randint(40, (30,), generator=generator(0, "places"))
    # up to shifts that leave nothing
    shifts = torch.randint(-10, 11, (30, 2), generator=generator(0, "shifts"))
    flips = torch.rand(30, generator=generator(0, "flips")) < 0.5
    found = take(split.images, places, shifts, flips, 255.0)  # type: ignore[operator]
    expected = [moved(split.images[k], s, f) for k, s, f in zip(places, shifts, flips, strict=True)]
    assert torch.equal(found, torch.stack(expected).float() / 255)


def test_crops_and_flips_are_uniform() -> None:
    many = Split(torch.zeros(9000, 1, 4, 4, dtype=torch.uint8), torch.zeros(9000).long())
    moves = build(many, padding=1, augmentation=None).moves(0)
    counts = ((moves.shifts + 1) * torch.tensor([3, 1])).sum(1).bincount(minlength=9)
    # five standard deviations of 9,000 draws of nine equally likely shifts
    assert counts.sub(1000).abs().max() < 5 * (1000 * 8 / 9) ** 0.5
    assert abs(int(moves.flips.sum()) - 4500) < 5 * 2250**0.5


def test_nothing_moves_without_padding_and_flip(split: Split) -> None:
    found = collect(build(split, padding=0, flip=False))
    for key, (image, label, _) in found.items():
        assert torch.equal(image, split.images[key].float() / 255)
        assert label == split.labels[key]


@pytest.mark.parametrize("kind", [torch.uint8, torch.bool, torch.float32])
def test_the_guide_moves_with_its_image(split: Split, kind: torch.dtype) -> None:
    class Shown(Cutout):
        """Deletes where the guide is positive, so that the mask shows the guide."""

        wants = "attack"

        def mask(self, images: Tensor, generator: object, guide: Tensor | None = None) -> Tensor:
            assert guide is not None
            return guide > 0

    guide = (split.images[:, :1] > 127).to(kind)
    found = collect(build(split, augmentation=Shown(4), guide=guide))
    for image, _, mask in found.values():
        # the frame is black, so it holds no point
        assert torch.equal(mask, image[:1] > 127.5 / 255)


def test_a_part_of_a_split_finds_its_guides_by_id(split: Split) -> None:
    places = torch.arange(5, 40, 3)
    guide = torch.zeros(40, 1, 9, 7)
    guide[places] = 1.0
    some = AdvMask(length=(2, 3), share=Ramp(1.0))
    found = collect(build(split.take(places), augmentation=some, guide=guide, batch_size=50))
    assert sorted(found) == places.tolist()
    assert all(mask.any() for _, _, mask in found.values())


def test_guides_that_do_not_fit_are_refused(split: Split) -> None:
    with pytest.raises(ValueError, match="needs a guide"):
        build(split, augmentation=AdvMask())
    for guide in (torch.zeros(40, 1, 7, 9), torch.zeros(39, 1, 9, 7)):
        with pytest.raises(ValueError, match="does not fit images of"):
            build(split, augmentation=AdvMask(), guide=guide)


def test_numbers_out_of_range_are_refused_one_by_one(split: Split) -> None:
    with pytest.raises(ValueError, match="batch_size is 0: it must be at least 1"):
        build(split, batch_size=0)
    with pytest.raises(ValueError, match="padding is -1: it must not be negative"):
        build(split, padding=-1)
    with pytest.raises(ValueError, match="there are no training images: lower --validation"):
        build(split.take(torch.arange(0)))


def test_a_live_guide_is_left_to_the_training_loop(split: Split) -> None:
    assert all(b.mask is None for b in build(split, augmentation=KeepAugment()).epoch(0, 1.0))


def test_stored_images_and_global_draws_stay_as_they_are(split: Split) -> None:
    before, state = split.images.clone(), torch.random.get_rng_state()
    guide = torch.ones(40, 1, 9, 7, dtype=torch.bool)
    some = build(split, augmentation=AdvMask(length=(2, 3)), guide=guide)
    for batch in some.epoch(0, 1.0):
        batch.images.zero_()
        if batch.mask is not None:
            batch.mask.fill_(True)
    assert torch.equal(split.images, before)
    assert guide.all()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not all(mask.all() for _, _, mask in collect(some).values())


def test_a_last_batch_of_one_is_left_out_of_training_only(split: Split) -> None:
    sizes = [len(b.labels) for b in build(split, batch_size=13).epoch(0, 1.0)]
    assert sizes == [13, 13, 13]
    assert len(build(split, batch_size=13)) == 3
    assert [len(b.labels) for b in build(split, batch_size=11).epoch(0, 1.0)] == [11, 11, 11, 7]
    alone = split.take(torch.tensor([4]))
    assert [len(b.labels) for b in build(alone).epoch(0, 1.0)] == [1]

    def shown() -> Iterator[Tensor]:
        for images, labels in batches(split, 13, "cpu"):
            assert len(images) == len(labels)
            yield images

    assert torch.equal(torch.cat(list(shown())), split.images.float() / 255)
