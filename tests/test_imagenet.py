"""ImageNet as it is published: with its development kit, as Kaggle packs it, in class folders."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_files import noise
from PIL import Image
from scipy.io import savemat

from bench.data import catalog
from bench.data.dataset import Dataset
from bench.errors import Missing

pytestmark = pytest.mark.usefixtures("own_cache")

IDS = ("n02", "n01", "n03")  # in the order of ImageNet's numbers, which is not that of the names


def imagenet(path: Path, train: str = "train", val: str = "val") -> tuple[Path, list[int]]:
    for name in IDS:
        (path / train / name).mkdir(parents=True)
        for k in range(2):
            (path / train / name / f"{name}_{k}.JPEG").write_bytes(noise(k, (9, 7), "JPEG"))
    truth = [2, 3, 1, 1, 3]  # numbers of classes, from 1
    (path / val).mkdir(parents=True)
    for k in range(len(truth)):
        file = path / val / f"ILSVRC2012_val_{k + 1:08}.JPEG"
        file.write_bytes(noise(50 + k, (9, 7), "JPEG"))
    return path, truth


def kit(path: Path, truth: list[int], compress: bool = True) -> None:
    place = path / "ILSVRC2012_devkit_t12" / "data"
    place.mkdir(parents=True)
    (place / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(map(str, truth)) + "\n")
    records = np.zeros(len(IDS), dtype=[("ILSVRC2012_ID", object), ("WNID", object)])
    for k, name in enumerate(IDS):
        records[k] = (k + 1, name)
    savemat(place / "meta.mat", {"synsets": records[:, None]}, do_compression=compress)


def check(data: Dataset, truth: list[int]) -> None:
    assert data.classes == ("n01", "n02", "n03")
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    expected: dict[int, list[int]] = {}
    for k, number in enumerate(truth):
        expected.setdefault(data.classes.index(IDS[number - 1]), []).append(k)
    order = [k for label in sorted(expected) for k in expected[label]]
    assert data.test.labels.tolist() == [
        label for label in sorted(expected) for _ in expected[label]
    ]
    for place, k in enumerate(order):
        image = Image.open(io.BytesIO(noise(50 + k, (9, 7), "JPEG")))
        middle = np.asarray(image)[:, 1:8]  # 7x7 of 9x7
        assert np.array_equal(data.test.images[place].permute(1, 2, 0).numpy(), middle)


@pytest.mark.parametrize("compress", [True, False])
def test_imagenet_is_read_with_its_development_kit(tmp_path: Path, compress: bool) -> None:
    path, truth = imagenet(tmp_path / "imagenet")
    kit(path, truth, compress)
    check(catalog.load(str(path), side=7), truth)
    named = catalog.load("imagenet", root=tmp_path, side=7)
    check(named, truth)
    assert (named.name, named.pin) == ("imagenet(side=7)", "")


def test_imagenet_is_read_as_kaggle_packs_it(tmp_path: Path) -> None:
    below = "ILSVRC/Data/CLS-LOC"
    path, truth = imagenet(tmp_path / "kaggle", f"{below}/train", f"{below}/val")
    lines = [
        f"ILSVRC2012_val_{k + 1:08},{IDS[number - 1]} 1 2 3 4 {IDS[number - 1]} 5 6 7 8"
        for k, number in enumerate(truth)
    ]
    text = "ImageId,PredictionString\n" + "\n".join(lines[::-1]) + "\n"
    (path / "LOC_val_solution.csv").write_text(text)
    check(catalog.load(str(path), side=7), truth)


def test_imagenet_is_read_from_class_folders(tmp_path: Path) -> None:
    path, truth = imagenet(tmp_path / "imagenet")
    for k, number in enumerate(truth):
        file = path / "val" / f"ILSVRC2012_val_{k + 1:08}.JPEG"
        (path / "val" / IDS[number - 1]).mkdir(exist_ok=True)
        file.rename(path / "val" / IDS[number - 1] / file.name)
    check(catalog.load("imagenet", root=tmp_path, side=7), truth)
    check(catalog.load(str(path), side=7), truth)


def broken_lines(path: Path, truth: list[int]) -> None:
    kit(path, truth[:-1])


def unknown_class(path: Path, truth: list[int]) -> None:
    kit(path, [*truth[:-1], 4])


def large_table(path: Path, truth: list[int]) -> None:
    kit(path, truth)
    place = path / "ILSVRC2012_devkit_t12" / "data" / "meta.mat"
    savemat(place, {"other": np.zeros((1 << 12, 1 << 10))}, do_compression=True)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda path, truth: None,
            Missing,
            "has no classes of the images in val/: looked for "
            "ILSVRC2012_validation_ground_truth.txt with meta.mat "
            "(unpack ILSVRC2012_devkit_t12.tar.gz there), for LOC_val_solution.csv, "
            "and for a folder per class in val/",
        ),
        (broken_lines, ValueError, "ground_truth.txt has 4 lines for 5 images in val/"),
        (unknown_class, ValueError, "is of number 4, which has no training images"),
        (large_table, ValueError, "meta.mat in "),
    ],
)
def test_what_imagenet_lacks_is_said_in_one_line(
    tmp_path: Path, change: Callable[[Path, list[int]], None], error: type[Exception], message: str
) -> None:
    path, truth = imagenet(tmp_path / "mine")
    change(path, truth)
    with pytest.raises(error, match=re.escape(message)) as caught:
        catalog.load(str(path))
    assert "\n" not in str(caught.value)


def test_a_folder_without_the_images_of_imagenet_says_where_it_looked(tmp_path: Path) -> None:
    (tmp_path / "imagenet" / "images").mkdir(parents=True)
    (tmp_path / "imagenet" / "more").mkdir(parents=True)
    with pytest.raises(
        Missing, match="has no training images of ImageNet: looked for train/, ILSVRC"
    ):
        catalog.load("imagenet", root=tmp_path)
