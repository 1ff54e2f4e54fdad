"""Pipelines of other libraries in any loader: the same images for a seed, points in step."""

import random
from typing import Any

import albumentations
import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.transforms import v2

from augmentations import (
    AdvMask,
    Augmentation,
    Cutout,
    HideAndSeek,
    MaskedLoader,
    Ramp,
    WithMask,
    WithTransform,
    as_albumentations,
    as_torchvision,
)
from augmentations.samples import fingerprint
from bench.data.dataset import read_split

N, SIDE = 20, 16
GREY = (0.5, 0.5, 0.5)
POINTS = AdvMask(length=(1, 1), ratio=(1.0, 1.0), share=Ramp(1.0))  # deletes exactly the points


def forks(test: Any) -> Any:
    """Let a test start more worker processes than there are cores, as copies of this process."""
    for text in ("ignore:.*fork.*:DeprecationWarning", "ignore:This DataLoader will create"):
        test = pytest.mark.filterwarnings(text)(test)
    return test


class Marked(Dataset[tuple[Any, int]]):
    """Black images with some white pixels, in the form that a library likes."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.transform: Any = None

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[Any, int]:
        values = (marks(index)[:, :, None] * np.ones(3)).astype(np.uint8) * 255
        if self.kind == "pil":
            image = Image.fromarray(values)
            return (image if self.transform is None else self.transform(image)), index
        if self.kind == "array":
            return values, index
        return torch.from_numpy(values).permute(2, 0, 1), index


def marks(index: int) -> Any:
    return np.random.default_rng(index).random((SIDE, SIDE)) < 0.1 * (index > 0)


def points() -> list[Tensor]:
    return [torch.from_numpy(marks(index)).nonzero() for index in range(N)]


def pipeline(library: str, method: Augmentation, **others: Any) -> Any:
    if library == "torchvision":
        moves = [v2.RandomCrop(SIDE, padding=3), v2.RandomHorizontalFlip()]
        return v2.Compose([*moves, as_torchvision(method, mean=GREY, **others)])
    return albumentations.Compose(
        [
            albumentations.PadIfNeeded(SIDE + 6, SIDE + 6, border_mode=0, fill=0),
            albumentations.RandomCrop(SIDE, SIDE),
            albumentations.HorizontalFlip(p=0.5),
            as_albumentations(method, mean=GREY, **others),
        ],
        keypoint_params=albumentations.KeypointParams(format="xy", remove_invisible=False),
    )


@pytest.mark.parametrize(
    ("library", "kind"),
    [
        ("torchvision", "pil"),
        ("torchvision", "tensor"),
        ("torchvision", "array"),
        ("albumentations", "array"),
        ("albumentations", "pil"),
        ("albumentations", "tensor"),
    ],
)
def test_crop_and_flip_move_image_and_points_together(library: str, kind: str) -> None:
    plain = WithTransform(Marked(kind), pipeline(library, Cutout(share=Ramp(0.0)), **(
        {} if library == "torchvision" else {"progress": 1.0})), points(), seed=5)  # fmt: skip
    masked = WithTransform(Marked(kind), pipeline(library, POINTS), points(), seed=5)
    moved = set()
    for index in [*range(N)] * 2:
        before, after = plain[index][0], masked[index][0]
        white = before.float() > 0.9 * (255 if before.dtype == torch.uint8 else 1)
        gone = after != before
        assert torch.equal(gone, white)
        moved.add(tuple(white[0].flatten().tolist()))
    assert len(moved) > 1.8 * (N - 1)


def epochs(data: Any, workers: int, persistent: bool, count: int = 2) -> list[Tensor]:
    loader = DataLoader(data, 7, num_workers=workers, persistent_workers=persistent)
    return [torch.cat([batch for batch, _ in loader]) for _ in range(count)]


def built(adapter: str) -> Any:
    """A dataset of each kind whose masks differ in every epoch."""
    method = AdvMask(length=(2, 5), share=Ramp(0.2, 0.9))
    if adapter == "WithMask":
        return WithMask(Marked("pil"), method, points(), 3, padding=3, flip=True, epochs=3)
    if adapter == "timm":
        data = WithMask(Marked("pil"), method, points(), 3, padding=3, epochs=3)
        data.transform = timm.data.create_transform(
            (3, SIDE, SIDE), is_training=True, auto_augment="rand-m9-mstd0.5", re_prob=0.5
        )
        return data
    return WithTransform(Marked("pil"), pipeline(adapter, method), points(), 3, epochs=3)


@pytest.mark.slow
@forks
@pytest.mark.parametrize("adapter", ["WithMask", "torchvision", "albumentations", "timm"])
def test_no_number_of_workers_changes_an_image(adapter: str) -> None:
    first = epochs(built(adapter), 0, False)
    assert not torch.equal(first[0], first[1])
    for workers, persistent in ((1, True), (4, False), (4, True)):
        found = epochs(built(adapter), workers, persistent)
        assert all(torch.equal(*pair) for pair in zip(first, found, strict=True))
    resumed = built(adapter)
    resumed.set_epoch(1)
    for workers in (0, 1):
        assert torch.equal(epochs(resumed, workers, False, 1)[0], first[1])


def scattered(image: Tensor) -> Tensor:
    """Noise as a function of a user's own draws it, from every global state."""
    noisy = image.float() + torch.rand(1) + float(np.random.rand()) + random.random()  # noqa: NPY002
    return noisy


BARE = {
    "a pipeline of torchvision": v2.Compose(
        [v2.ColorJitter(0.5, 0.5), v2.RandomErasing(p=1.0), v2.RandomRotation(30)]
    ),
    "a transform of torchvision": v2.RandomErasing(p=1.0),
    "a pipeline of albumentations": albumentations.Compose(
        [albumentations.RandomBrightnessContrast(p=0.9), albumentations.CoarseDropout(p=1.0)]
    ),
    "a transform of albumentations": albumentations.CoarseDropout(p=1.0),
    "a function": scattered,
}
"""What draws from states of its own library, with nothing of this package in it."""


@pytest.mark.slow
@forks
@pytest.mark.parametrize("name", BARE)
def test_bare_transforms_of_others_depend_on_no_workers_either(name: str) -> None:
    kind = "array" if "albumentations" in name else "tensor"

    def built_anew() -> WithTransform:
        return WithTransform(Marked(kind), BARE[name], seed=4)

    first = epochs(built_anew(), 0, False)
    assert not torch.equal(first[0], first[1])
    assert len(first[0].flatten(1).unique(dim=0)) == N  # no image has another's draws
    for workers, persistent in ((1, False), (2, False), (2, True)):
        torch.manual_seed(workers)  # of no effect
        found = epochs(built_anew(), workers, persistent)
        assert all(torch.equal(*pair) for pair in zip(first, found, strict=True))
    other = epochs(WithTransform(Marked(kind), BARE[name], seed=5), 0, False, 1)
    assert not torch.equal(other[0], first[0])


@pytest.mark.parametrize("library", ["torchvision", "albumentations"])
def test_the_share_grows_with_the_epochs(library: str) -> None:
    white = TensorDataset(torch.ones(200, 3, SIDE, SIDE), torch.zeros(200))
    method = Cutout(8, share=Ramp(0.0, 1.0))
    steps = pipeline(library, method)
    alone = type(steps)([steps.transforms[-1]])  # no crop, whose frame is black
    data = WithTransform(white, alone, epochs=4)
    shares = []
    for epoch in range(5):
        data.set_epoch(epoch)
        shares.append(sum(bool((data[i][0] < 1).any()) for i in range(200)) / 200)
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0], abs=0.11)


def test_global_draws_are_left_alone() -> None:
    for library in ("torchvision", "albumentations"):
        data = WithTransform(Marked("pil"), pipeline(library, POINTS), points())
        state = torch.get_rng_state(), random.getstate()
        data[3]
        assert torch.equal(torch.get_rng_state(), state[0])
        assert random.getstate() == state[1]


def test_a_pipeline_without_points_needs_no_keypoints() -> None:
    erase = albumentations.Compose([as_albumentations(Cutout(8), mean=GREY)])
    assert WithTransform(Marked("array"), erase)[1][0].shape == (3, SIDE, SIDE)
    with pytest.raises(ValueError, match=r"takes no keypoints.*keypoint_params=A\.KeypointParams"):
        WithTransform(Marked("array"), erase, points())
    with pytest.raises(ValueError, match="points for 3 images, but 20 images"):
        WithTransform(Marked("array"), erase, points()[:3])
    with pytest.raises(ValueError, match="epochs is 0"):
        WithTransform(Marked("array"), erase, epochs=0)


@pytest.mark.parametrize("library", ["torchvision", "albumentations"])
def test_forgotten_points_are_asked_for_where_they_belong(library: str) -> None:
    data = WithTransform(Marked("array"), pipeline(library, POINTS))
    with pytest.raises(ValueError, match=r"AdvMask needs a guide: .* points=points\)") as caught:
        data[1]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("format", ["yx", "xya"])
def test_points_are_given_to_no_keypoints_of_another_format(format: str) -> None:
    erase = albumentations.Compose(
        [albumentations.HorizontalFlip(), as_albumentations(POINTS, mean=GREY)],
        keypoint_params=albumentations.KeypointParams(format=format, remove_invisible=False),
    )
    with pytest.raises(ValueError, match=f"keypoints of format '{format}', but .*format='xy'"):
        WithTransform(Marked("array"), erase, points())


def coloured(mode: str) -> Image.Image:
    values = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    image = Image.fromarray(values)
    if mode == "LA":
        return image.convert("L").convert("LA")
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_pil_images_of_every_mode_are_read_alike_everywhere(mode: str) -> None:
    image = coloured(mode)
    right = image.convert("L" if mode in ("1", "L") else "RGB")
    wanted = v2.functional.pil_to_tensor(right).float() / 255
    split = read_split([(image, 0), (image, 1)])
    assert torch.equal(split.images[0], v2.functional.to_image(right))
    found = Contents([torch.tensor([[1, 2]])] * 2)
    found.contents = torch.tensor([fingerprint(each / 255) for each in split.images.float()])
    never = AdvMask(share=Ramp(0.0))
    data = [(image, 0), (image, 1)]
    assert torch.equal(WithMask(data, never, found)[0][0], wanted)
    deletion = as_torchvision(never, mean=(0.5,))
    assert torch.equal(WithTransform(data, v2.Compose([deletion]), found)[0][0], wanted)
    alone = as_torchvision(Cutout(share=Ramp(0.0)), mean=(0.5,))(image)
    assert alone.mode == right.mode
    assert np.array_equal(np.asarray(alone), np.asarray(right))


@pytest.mark.parametrize("mode", ["I", "I;16", "F"])
def test_pil_images_of_more_than_8_bits_are_refused(mode: str) -> None:
    image = Image.new(mode, (8, 8))
    for read in (
        lambda: WithMask([(image, 0)], Cutout(4), mean=(0.5,))[0],
        lambda: WithTransform([(image, 0)], as_torchvision(Cutout(4), mean=(0.5,)))[0],
        lambda: as_torchvision(Cutout(4), mean=(0.5,))(image),
    ):
        with pytest.raises(ValueError, match="more than 8 bits per channel: convert it to 8"):
            read()


class Contents(list[Tensor]):
    """Points that know the images that they were found on."""

    contents: Tensor


def found_on(dataset: Any) -> Contents:
    found = Contents(points())
    found.contents = torch.tensor(
        [fingerprint(v2.functional.to_dtype(v2.functional.to_image(image), scale=True))
         for image, _ in (dataset[index] for index in range(N))]
    )  # fmt: skip
    return found


class Changed(Marked):
    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = super().__getitem__(index)
        if index == 7:
            image.putpixel((3, 4), (1, 2, 3))
        return image, label


@pytest.mark.parametrize("wrapper", ["WithMask", "WithTransform"])
def test_an_image_that_has_changed_since_its_points_were_found_is_noticed(wrapper: str) -> None:
    def wrapped(data: Dataset[Any], given: Any) -> Any:
        if wrapper == "WithMask":
            return WithMask(data, POINTS, given)
        return WithTransform(data, pipeline("torchvision", POINTS), given)

    known = found_on(Marked("pil"))
    for kind in ("pil", "array", "tensor"):
        for _ in wrapped(Marked(kind), known):
            pass
    changed = wrapped(Changed("pil"), known)
    assert changed[6][1] == 6
    with pytest.raises(ValueError, match="image 7 is not the one whose points were found: the dat"):
        changed[7]
    normalised = TensorDataset(torch.randn(N, 3, SIDE, SIDE), torch.arange(N))
    assert wrapped(normalised, known)[7][1] == 7  # cannot be compared


def timm_loader(data: Any, workers: int, prefetch: bool = True, persistent: bool = False) -> Any:
    return timm.data.create_loader(
        data, (3, SIDE, SIDE), 5, is_training=False, num_workers=workers, use_prefetcher=prefetch,
        device=torch.device("cpu"), persistent_workers=persistent, mean=GREY, std=(0.25,) * 3,
        crop_pct=1.0,
    )  # fmt: skip


@pytest.mark.slow
@forks
@pytest.mark.parametrize("prefetch", [True, False])
def test_a_timm_loader_takes_a_dataset_with_masks(prefetch: bool) -> None:
    def data() -> WithMask:
        return WithMask(Marked("pil"), POINTS, points(), mean=(0.2,) * 3, padding=2, flip=True)

    wanted = data()
    wanted.transform = None
    for workers, persistent in ((0, False), (1, False), (2, True)):
        loader = timm_loader(data(), workers, prefetch, persistent)
        for epoch in range(2):
            wanted.set_epoch(epoch)
            images = torch.cat([images for images, _ in loader])
            expected = torch.stack([wanted[i][0] for i in range(N)])
            assert torch.allclose(images, (expected - 0.5) / 0.25, atol=1e-5)


def test_a_pipeline_is_not_exchanged_behind_the_user_s_back() -> None:
    data = WithTransform(Marked("pil"), pipeline("torchvision", POINTS), points())
    with pytest.raises(ValueError, match="has a pipeline already: give timm's create_loader a Wit"):
        timm_loader(data, 0)


def test_normalised_images_are_refused_before_a_transform() -> None:
    normalised = TensorDataset(torch.randn(4, 3, SIDE, SIDE), torch.arange(4))
    data = WithMask(normalised, Cutout(4), transform=v2.functional.pil_to_tensor)
    with pytest.raises(ValueError, match=r"image 0 has values from .* before any normalisation"):
        data[0]


@pytest.mark.slow
@forks
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_masks_of_a_loader_of_batches_depend_on_no_workers_and_continue(workers: int) -> None:
    def masks(*wanted: int) -> list[Tensor]:
        loader = timm_loader(Marked("pil"), workers, persistent=workers > 1)
        masked = MaskedLoader(
            loader, HideAndSeek(sizes=(4,), share=Ramp(1.0)), torch.Generator().manual_seed(9)
        )
        found = []
        for epoch in wanted:
            masked.set_epoch(epoch)
            found.append(torch.cat([images for images, _ in masked]))
        return found

    first = masks(0, 1, 2)
    assert not torch.equal(first[0], first[1])
    assert torch.equal(masks(2)[0], first[2])
    reference = MaskedLoader(
        timm_loader(Marked("pil"), 0), HideAndSeek(sizes=(4,), share=Ramp(1.0)),
        torch.Generator().manual_seed(9),
    )  # fmt: skip
    reference.set_epoch(2)
    assert torch.equal(torch.cat([images for images, _ in reference]), first[2])


class Masked(Dataset[Tensor]):
    """White images through one albumentations transform."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Tensor:
        out = self.transform(image=np.full((32, 32, 3), 255, np.uint8))["image"]
        return torch.from_numpy(out)


@forks
@pytest.mark.parametrize("persistent", [False, True])
def test_progress_of_albumentations_reaches_workers_that_persist(persistent: bool) -> None:
    deletion = as_albumentations(Cutout(share=Ramp(0.0, 1.0)), mean=GREY, progress=0.0)
    loader = DataLoader(
        Masked(deletion), 3, num_workers=2, persistent_workers=persistent,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    for progress in (0.0, 1.0, 0.0, None):
        deletion.progress = progress
        masked = (torch.cat(list(loader)) < 255).flatten(1).any(1)
        assert masked.all() if progress != 0.0 else not masked.any()
    assert albumentations.to_dict(deletion)["transform"]["progress"] is None
