"""Datasets in memory: arrays and torch datasets become one, or are refused in one line."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data.dataset import Dataset, from_arrays, from_split, read_split

IMAGES = torch.arange(256).reshape(4, 1, 8, 8).to(torch.uint8)
LABELS = [0, 1, 2, 1]


def mine(images: Any = IMAGES, labels: Any = LABELS, **others: Any) -> Dataset:
    given = {"test_images": IMAGES, "test_labels": LABELS} | others
    return from_arrays("mine", images, labels, **given)


@pytest.mark.parametrize(
    "given",
    [
        IMAGES,
        IMAGES[:, 0],
        IMAGES.numpy(),
        IMAGES.float() / 255,
        (IMAGES.double() / 255).numpy(),
        IMAGES.half() / 255,
        list(IMAGES),
        [image.numpy() for image in IMAGES[:, 0]],
    ],
)
def test_every_byte_survives_the_way_into_a_dataset(given: Any) -> None:
    data = mine(given)
    assert torch.equal(data.train.images, IMAGES)
    assert data.train.labels.tolist() == LABELS
    assert data.classes == ("0", "1", "2")
    assert data.digest == mine().digest
    assert data.pin == data.digest
    assert float(data.mean) == pytest.approx(0.5)
    assert len(mine(classes=["a", "b", "c", "d"]).classes) == 4
    assert not mine(flip=False).flip


def test_labels_may_be_any_whole_numbers() -> None:
    for labels in (LABELS, np.array(LABELS, np.int16), torch.tensor(LABELS), [0.0, 1.0, 2.0, 1.0]):
        assert mine(labels=labels).train.labels.tolist() == LABELS


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"images": IMAGES[:0], "labels": []}, "train has no images: at least one is needed"),
        ({"test_images": [], "test_labels": []}, "test has no images"),
        ({"images": [IMAGES[0], IMAGES[1, :, :4]]}, r"train image 1 has shape (1, 4, 8), image 0"),
        ({"test_images": IMAGES[..., :4]}, "training and test images differ in size"),
        (
            {"images": IMAGES.long()},
            "train images: type int64 is not a type of pixels; give uint8, or floats",
        ),
        (
            {"images": IMAGES / 100},
            "train images: values from 0 to 2.55; floats must be in",
        ),
        ({"images": IMAGES * torch.nan}, "values from nan to nan"),
        ({"images": IMAGES[0, 0]}, "train images have shape (8, 8): give (n, c, h, w)"),
        ({"images": torch.rand(4, 8, 8, 3)}, "(4, 8, 8, 3), with channels last: permute them"),
        ({"labels": [0, 1, 1.5, 0]}, "train label 2 is 1.5: give integers"),
        ({"labels": [0, 1, torch.nan, 0]}, "train label 2 is nan: give integers"),
        ({"labels": ["a", "b", "c", "d"]}, "train labels are not integers"),
        ({"labels": [True, False, True, True]}, "train labels are not integers"),
        ({"labels": torch.eye(4)}, "train labels have shape (4, 4): one number per image"),
        ({"labels": [0, 1, -1, 0]}, "some labels are not among the 3 classes"),
        ({"classes": ["a", "b"]}, "some labels are not among the 2 classes"),
        ({"labels": [0, 1]}, "train has 2 labels for 4 images"),
    ],
)
def test_arrays_that_are_no_dataset_are_refused_in_one_line(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        mine(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("channels", [2, 4])
def test_only_grey_and_rgb_images_become_a_dataset(channels: int) -> None:
    images = torch.arange(4 * channels * 64).reshape(4, channels, 8, 8).to(torch.uint8)
    with pytest.raises(
        ValueError, match=f"train images have {channels} channels: give 1"
    ) as caught:
        mine(images, test_images=images)
    assert "\n" not in str(caught.value)
    read_split(torch.utils.data.TensorDataset(images, torch.tensor(LABELS)))  # for points alone


@pytest.mark.parametrize("name", ["", "a/b", "mine (2)", "digits(train=5)", ".."])
def test_a_name_that_records_could_misread_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a dataset cannot be called"):
        from_arrays(name, IMAGES, LABELS, IMAGES, LABELS)


class Listed:
    """A torch dataset in all but name."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def test_torch_datasets_of_pil_images_and_of_tensors_give_the_same_split() -> None:
    from torchvision.transforms.functional import to_tensor

    generator = torch.Generator().manual_seed(0)
    colour = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8, generator=generator)
    for pixels in (IMAGES, colour):
        pil = [Image.fromarray(each.permute(1, 2, 0).numpy().squeeze()) for each in pixels]
        kinds: list[list[Any]] = [pil, list(pixels), [to_tensor(each) for each in pil]]
        labels: list[Any] = [0, np.int64(1), torch.tensor(2), torch.tensor([1]), 0]
        for images in kinds:
            split = read_split(Listed(list(zip(images, labels, strict=False))))
            assert torch.equal(split.images, pixels)
            assert split.labels.tolist() == [0, 1, 2, 1, 0][: len(pixels)]
            assert split.ids.tolist() == list(range(len(pixels)))
            assert from_split(split).classes == ("0", "1", "2")


def test_a_subset_of_torch_keeps_its_order() -> None:
    whole = torch.utils.data.TensorDataset(IMAGES, torch.tensor(LABELS))
    found = read_split(torch.utils.data.Subset(whole, [2, 0]))
    assert torch.equal(found.images, IMAGES[[2, 0]])
    assert found.labels.tolist() == [2, 0]


class Random(Listed):
    def __getitem__(self, index: int) -> Any:
        return torch.rand(1, 8, 8), 0


class Endless(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Listed([]), "dataset has no images"),
        (Endless(), "dataset has no length: give a map-style dataset of (image, label)"),
        (Random([0]), "dataset[0] differs when it is read twice: remove its random transforms"),
        (Listed([1]), "dataset[0] is not a pair (image, label)"),
        (Listed([("a.png", 0)]), "dataset[0] is str: give a PIL image or a tensor"),
        (Listed([(torch.rand(4), 0)]), "dataset[0] is shape (4,): give a PIL image or a tensor"),
        (Listed([(IMAGES[0] / 10, 0)]), "dataset[0]: values from 0 to 6.3; floats must be"),
        (Listed([(IMAGES[0], 0), (IMAGES[0, :, 1:], 0)]), "dataset image 1 has shape (7, 8)"),
        (Listed([(IMAGES[0], "cat")]), "dataset labels are not integers"),
        (Listed([(IMAGES[0], 0.5)]), "dataset label 0 is 0.5: give integers"),
        (Listed([(Image.new("F", (8, 8)), 0)]), "dataset[0] has more than 8 bits per channel"),
    ],
)
def test_torch_datasets_that_cannot_be_read_are_refused_in_one_line(
    given: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_split(given)
    assert "\n" not in str(caught.value)
