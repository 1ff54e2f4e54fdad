"""Any dataset with masks: the same for every loader, different in every epoch, points in step."""

import random
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from augmentations import AdvMask, Cutout, GridMask, KeepAugment, Ramp, RandomErasing, WithMask

N, H, W = 24, 12, 10
POINTS = AdvMask(length=(1, 1), ratio=(1.0, 1.0), share=Ramp(1.0))  # deletes exactly the points
BLACK = (0.0, 0.0, 0.0)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def images() -> TensorDataset:
    return TensorDataset(noise(N, 3, H, W) * 0.9 + 0.1, torch.arange(N))


def maps() -> Tensor:
    return (noise(N, 1, H, W, seed=1) < 0.1).float()


def epochs(data: WithMask, workers: int, persistent: bool, count: int = 3) -> list[Tensor]:
    loader = DataLoader(data, 5, num_workers=workers, persistent_workers=persistent)
    return [torch.cat([batch for batch, _ in loader]) for _ in range(count)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_no_number_of_workers_changes_an_image() -> None:
    def built() -> WithMask:
        return WithMask(
            images(), AdvMask(length=(2, 4), share=Ramp(0.0, 0.8)), maps(), padding=2, flip=True,
            epochs=3, seed=7,
        )  # fmt: skip

    first = epochs(built(), 0, False)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[1], first[2])
    for workers, persistent in ((1, False), (1, True), (2, False), (2, True)):
        found = epochs(built(), workers, persistent)
        assert all(torch.equal(*pair) for pair in zip(first, found, strict=True))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stated_epoch_reaches_workers_that_persist(workers: int) -> None:
    data = WithMask(images(), Cutout(4), seed=3, mean=BLACK)
    counted = epochs(WithMask(images(), Cutout(4), seed=3, mean=BLACK), 0, False)
    loader = DataLoader(data, 5, num_workers=workers, persistent_workers=workers > 0)
    for epoch in (2, 0, 0, 1):  # as after a resumed run
        data.set_epoch(epoch)
        assert torch.equal(torch.cat([batch for batch, _ in loader]), counted[epoch])


def test_every_image_of_every_epoch_has_a_mask_of_its_own() -> None:
    data = WithMask(
        TensorDataset(torch.ones(N, 1, 32, 32), torch.arange(N)), Cutout(8), mean=(0.0,)
    )
    found = torch.cat(epochs(data, 0, False))
    assert len(found.flatten(1).unique(dim=0)) > 2.7 * N
    other = WithMask(data.dataset, Cutout(8), seed=1, mean=(0.0,))
    assert not torch.equal(torch.cat(epochs(other, 0, False)), found)


def test_an_image_depends_on_no_order_and_no_batch() -> None:
    one, other = (WithMask(images(), Cutout(4), padding=2, flip=True) for _ in range(2))
    forwards = [one[i][0] for i in range(N)]
    backwards = [other[i][0] for i in reversed(range(N))][::-1]
    assert all(torch.equal(*pair) for pair in zip(forwards, backwards, strict=True))
    assert [label for _, label in (one[i] for i in (0, 5, -1))] == [0, 5, N - 1]
    with pytest.raises(IndexError):
        one[N]


def test_crop_and_flip_move_image_and_points_together() -> None:
    marked = maps()
    shown = TensorDataset((0.5 + marked / 2).expand(N, 3, H, W), torch.arange(N))
    plain = WithMask(shown, Cutout(4, share=Ramp(0.0)), padding=3, flip=True, mean=BLACK)
    masked = WithMask(shown, POINTS, marked, padding=3, flip=True, mean=(0.25,) * 3)
    moves = set()
    for _ in range(4):
        for i in range(N):
            before, after = plain[i][0], masked[i][0]
            assert torch.equal(after == 0.25, before == 1.0)
            assert torch.equal(after[after != 0.25], before[before != 1.0])
            moves.add(tuple(before[0].flatten().tolist()))
    assert len(moves) > 2 * N


@pytest.mark.slow
def test_shifts_and_flips_are_uniform_and_the_frame_is_black() -> None:
    ramp = torch.arange(1.0, 10.0).reshape(1, 3, 3) / 10
    many = TensorDataset(ramp.expand(4500, 1, 3, 3), torch.zeros(4500))
    data = WithMask(many, Cutout(2, share=Ramp(0.0)), padding=1, flip=True, mean=(0.0,))
    found = torch.stack([data[i][0] for i in range(4500)]).flatten(1)
    kinds, counts = found.unique(dim=0, return_counts=True)
    assert len(kinds) == 18  # nine shifts, mirrored or not
    assert (counts - 250).abs().max() < 5 * 250**0.5
    padded = torch.nn.functional.pad(ramp, (1, 1, 1, 1))
    wanted = [
        way.flatten().tolist()
        for y in range(3)
        for x in range(3)
        for crop in [padded[0, y : y + 3, x : x + 3]]
        for way in (crop, crop.flip(1))
    ]
    assert sorted(kinds.tolist()) == sorted(wanted)


@pytest.mark.parametrize("kind", ["maps", "planes", "pairs", "arrays", "lists", "booleans"])
def test_points_are_maps_or_pairs(kind: str) -> None:
    marked = maps()
    marked[3] = 0  # an image without points
    given: Any = {
        "maps": marked,
        "planes": list(marked[:, 0]),
        "pairs": [one[0].nonzero() for one in marked],
        "arrays": [one[0].nonzero().to(torch.int16).numpy() for one in marked],
        "lists": [one[0].nonzero().tolist() for one in marked],
        "booleans": marked > 0,
    }[kind]
    data = WithMask(images(), POINTS, given, mean=BLACK)
    for i in range(N):
        assert torch.equal((data[i][0] == 0).all(0), marked[i, 0] > 0)


class Kinds(Dataset[Any]):
    """The same images as PIL images, arrays, or uint8 tensors."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        values = np.random.default_rng(index).integers(0, 256, (16, 12, 3)).astype(np.uint8)
        if self.kind == "pil":
            return Image.fromarray(values), index
        if self.kind == "array":
            return values, index
        tensor = torch.from_numpy(values).permute(2, 0, 1)
        return [tensor if self.kind == "uint8" else tensor.float() / 255, index]


@pytest.mark.parametrize("kind", ["pil", "array", "uint8"])
def test_images_of_any_kind_give_the_same(kind: str) -> None:
    one, other = (WithMask(Kinds(k), RandomErasing(share=Ramp(1.0))) for k in (kind, "float"))
    for i in range(6):
        image, label = one[i]
        assert torch.equal(image, other[i][0])
        assert image.shape == (3, 16, 12)
        assert label == i


def test_mean_and_deviation_are_the_dataset_s_unless_given() -> None:
    stored = images().tensors[0].double()
    data = WithMask(images(), RandomErasing())
    torch.testing.assert_close(torch.tensor(data.mean), stored.mean((0, 2, 3)).float())
    wanted = stored.transpose(0, 1).flatten(1).std(1, correction=0).float()
    assert data.std is not None
    torch.testing.assert_close(torch.tensor(data.std), wanted)
    filled = WithMask(images(), POINTS, torch.ones(N, H, W), mean=(0.3, 0.4, 0.5))[0][0]
    assert torch.equal(filled[:, 0, 0], torch.tensor([0.3, 0.4, 0.5]))


def test_the_share_grows_with_the_epochs() -> None:
    ones = TensorDataset(torch.ones(400, 1, 8, 8), torch.zeros(400))
    data = WithMask(ones, GridMask((4, 4), share=Ramp(0.0, 1.0)), epochs=4, mean=(0.0,))
    shares = []
    for epoch in range(5):
        data.set_epoch(epoch)
        shares.append(sum(bool((data[i][0] == 0).any()) for i in range(400)) / 400)
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0], abs=0.08)


@pytest.mark.usefixtures("unchecked")  # the checks of types draw, too
def test_neither_stored_images_nor_global_draws_change() -> None:
    data, marked = images(), maps()
    before, points, state = data.tensors[0].clone(), marked.clone(), torch.get_rng_state()
    masked = WithMask(data, POINTS, marked, padding=1, flip=True)
    for i in range(N):
        masked[i][0].zero_()
    python, numbers = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    WithMask(Drawing(), Cutout(4))  # estimates colours from images that are drawn
    assert random.getstate() == python
    assert np.array_equal(np.random.get_state()[1], numbers)  # noqa: NPY002
    assert torch.equal(data.tensors[0], before)
    assert torch.equal(marked, points)
    assert torch.equal(torch.get_rng_state(), state)


class Drawing(Dataset[Any]):
    """Draws its images from the global generators."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return torch.rand(3, H, W) * random.random() * np.random.random(), 0  # noqa: NPY002


class Endless(IterableDataset[Any]):
    """Has neither a length nor an index."""

    def __iter__(self) -> Any:
        return iter([])


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"augmentation": AdvMask()}, "AdvMask needs points, one entry per image: WithMask"),
        ({"augmentation": KeepAugment()}, "KeepAugment needs the saliency of each image, one map"),
        ({"augmentation": "cutout"}, r"'cutout' is a name: give an augmentation, such as Cutout"),
        ({"augmentation": Cutout}, r"give an augmentation, such as Cutout\(\), not the class Cut"),
        ({"augmentation": SimpleNamespace(share=0.5)}, r"share is 0.5: write it as Ramp\(0.5\)"),
        ({"points": torch.ones(5, 1, H, W)}, "points for 5 images, but 24 images"),
        ({"padding": -1}, "padding is -1: it must be at least 0"),
        ({"padding": 1.5}, "padding is 1.5: it must be a whole number"),
        ({"epochs": 1.5}, "epochs is 1.5: it must be a whole number"),
        ({"epochs": 0}, "epochs is 0: it must be at least 1"),
        ({"dataset": TensorDataset(torch.zeros(0, 3, 8, 8), torch.zeros(0))}, "dataset is empty"),
        ({"dataset": TensorDataset(torch.zeros(4, 3, 8, 8))}, "needs .image, label. pairs"),
        ({"dataset": TensorDataset(torch.zeros(4, 8, 8), torch.zeros(4))}, r"image .* is \(8, 8\)"),
        ({"dataset": Endless()}, "Endless has no length: give a map-style dataset"),
        (
            {"dataset": TensorDataset(torch.zeros(4, 1, 8, 8).long(), torch.zeros(4))},
            "images are torch.int64",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused_in_one_line(wrong: dict[str, Any], text: str) -> None:
    settings: dict[str, Any] = {"dataset": images(), "augmentation": Cutout(4)}
    with pytest.raises(ValueError, match=text) as caught:
        WithMask(**(settings | wrong))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_mean_that_does_not_fit_the_image_is_refused_in_one_line(channels: int) -> None:
    data = TensorDataset(torch.ones(2, channels, 8, 8), torch.arange(2))
    wanted = f"mean has 3 values, but the image has {channels} channel"
    with pytest.raises(ValueError, match=wanted) as caught:
        WithMask(data, Cutout(4), mean=BLACK)[0]
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="std has 3 values"):
        WithMask(data, RandomErasing(share=Ramp(1.0)), mean=(0.5,), std=(0.2,) * 3)[0]


@pytest.mark.parametrize("kind", ["pil", "array", "uint8"])
def test_a_mean_of_bytes_is_refused_for_bytes(kind: str) -> None:
    with pytest.raises(
        ValueError, match=r"mean is \(125.0, 120.0, 110.0\): give values in \[0, 1\]"
    ):
        WithMask(Kinds(kind), Cutout(4), mean=(125.0, 120.0, 110.0))[0]
    normalised = WithMask(images(), Cutout(4), mean=(-1.0, 0.0, 2.0))
    assert (normalised[0][0] == 2.0).any()


def test_points_that_do_not_fit_their_image_are_named() -> None:
    outside = [torch.tensor([[0, 0], [H, 3]])] * N
    with pytest.raises(ValueError, match=r"point \(12, 3\) of image 2 is outside .* 12 x 10 pix"):
        WithMask(images(), POINTS, outside)[2]
    with pytest.raises(ValueError, match=r"points of image 1 have shape \(1, 4, 4\): give a map"):
        WithMask(images(), POINTS, [torch.ones(1, 4, 4)] * N)[1]
    with pytest.raises(ValueError, match="points of image 1 are fractions of pixels: round them"):
        WithMask(images(), POINTS, [torch.tensor([[0.0, 3.5]])] * N)[1]
    with pytest.raises(ValueError, match="epoch is -1"):
        WithMask(images(), Cutout(4)).set_epoch(-1)


@pytest.mark.slow
def test_importing_the_augmentations_loads_nothing_heavy() -> None:
    heavy = "mlflow timm matplotlib sklearn skimage albumentations scipy click numba torchvision"
    code = f"import sys, augmentations; print(*set({heavy.split()}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_an_array_whose_channels_were_reversed_is_an_image() -> None:
    """As ``cv2.imread(file)[..., ::-1]`` gives one: its strides are negative."""
    pixels = torch.randint(256, (H, W, 3), generator=torch.Generator().manual_seed(0)).byte()
    reversed_ = pixels.numpy()[..., ::-1]
    one, copied = (WithMask([(each, 0)], Cutout(4)) for each in (reversed_, reversed_.copy()))
    assert torch.equal(one[0][0], copied[0][0])
