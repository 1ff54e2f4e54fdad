"""Datasets: what is read, what is refused, and how they are cut."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import folder, tree, values
from PIL import Image

from bench.data import catalog, embedded, image_files, splits
from bench.data.catalog import load
from bench.data.dataset import from_arrays
from bench.data.seeds import generator
from bench.data.splits import Split, cut, part
from bench.errors import Missing
from bench.models import networks


@pytest.fixture(scope="session")
def places() -> str:
    """Where datasets may be, looked up before the variable is taken away."""
    return os.environ.get("BENCH_DATA", "/nowhere")


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.parametrize(
    ("name", "digest", "shape", "counts"),
    [
        ("digits", "e36f3dccc38b6fc7", (1, 8, 8), (1438, 359)),
        ("photos", "b62b40564447ef23", (3, 32, 32), (2000, 500)),
    ],
)
def test_embedded_images_are_always_the_same(
    name: str, digest: str, shape: tuple[int, ...], counts: tuple[int, int]
) -> None:
    data = load(name)
    assert (data.digest, data.source) == (digest, "embedded")
    assert data.train.images.shape == (counts[0], *shape)
    assert data.test.images.shape == (counts[1], *shape)
    assert len(data.classes) == 10
    assert data.flip == (name == "photos")
    scaled = data.train.images.double() / 255
    assert torch.allclose(data.mean.double(), scaled.mean((0, 2, 3)))
    assert torch.allclose(data.std.double(), scaled.std((0, 2, 3), unbiased=False))


@pytest.mark.parametrize("name", catalog.ENTRIES)
def test_the_catalog_knows_what_is_in_a_dataset(
    name: str, monkeypatch: pytest.MonkeyPatch, places: str
) -> None:
    monkeypatch.setenv("BENCH_DATA", places)
    monkeypatch.setattr(catalog, "SYSTEM", Path("/usr/share/datasets"))
    entry = catalog.facts(name)
    assert (entry.embedded is None) == bool(entry.places)
    try:
        data = load(name)
    except Missing:
        pytest.skip(f"{name} is not there")
    n, c, h, w = data.train.images.shape
    assert (n, len(data.test)) == (entry.train, entry.test)
    assert (c, h, w, len(data.classes)) == (entry.channels, entry.side, entry.side, entry.classes)
    assert data.flip == entry.flip
    assert data.named


def test_the_facts_of_a_part_and_of_a_folder_are_known_before_it_is_read() -> None:
    part_of = catalog.facts("digits(test=30, train=100)")
    assert (part_of.train, part_of.test, part_of.side, part_of.eps) == (100, 30, 8, 0.5)
    assert catalog.facts("digits(test=30)").train == 1438
    assert catalog.facts("some/folder (2)") == catalog.FOLDER
    assert catalog.divided("mine (2)(train=2)") == ("mine (2)", {"train": 2})


@pytest.mark.slow
def test_the_catalog_is_read_without_anything_heavy() -> None:
    code = (
        "import sys; import bench.data.catalog; "
        "heavy = {'torchvision', 'skimage', 'sklearn', 'scipy', 'numba', 'timm'} & set(sys.modules)"
        "; assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_images_of_one_color_are_refused_and_a_channel_without_contrast_is_not() -> None:
    images = torch.full((8, 3, 4, 4), 7, dtype=torch.uint8)
    labels = torch.arange(8) % 2
    with pytest.raises(ValueError, match="all training images have one and the same color"):
        from_arrays("grey", images, labels, images, labels)
    images[0, 1, 0, 0] = 9
    found = from_arrays("nearly", images, labels, images, labels)
    assert found.std[[0, 2]].tolist() == [1, 1]
    assert 0 < found.std[1] < 0.01
    network = networks.build_for(found, "resnet8", seed=0)
    assert network(found.test.images.float() / 255).isfinite().all()
    with pytest.raises(ValueError, match="each std above 0"):
        networks.build_for(found, "resnet8", seed=0, std=[0.1, 0.0, 0.1])


def test_no_test_image_is_a_training_image() -> None:
    for name in ("digits", "photos"):
        data = load(name)
        train = {bytes(image.numpy()) for image in data.train.images}
        assert not any(bytes(image.numpy()) in train for image in data.test.images)


def test_photo_patches_keep_to_their_side(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes: dict[bytes, tuple[int, int, int, int, int]] = {}

    def crop(self: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
        patch = original(self, box)
        small = np.asarray(patch.resize((32, 32), Image.Resampling.BOX))
        boxes[small.transpose(2, 0, 1).tobytes()] = (*box, self.width)
        return patch

    original = Image.Image.crop
    monkeypatch.setattr(Image.Image, "crop", crop)
    _, train, test = embedded.photos()
    for split in (train, test):
        for image in split.images:
            left, top, right, bottom, width = boxes[image.numpy().tobytes()]
            assert 32 <= right - left == bottom - top <= 64
            assert top >= 0
            edge = round(0.7 * width)
            low, high = (0, edge) if split is train else (edge, width)
            assert low <= left < right <= high


def test_cuts_are_disjoint_stratified_and_determined_by_the_seed() -> None:
    labels = torch.arange(5).repeat_interleave(torch.tensor([10, 20, 30, 40, 50]))
    whole = Split(torch.arange(150, dtype=torch.uint8).reshape(150, 1, 1, 1), labels)
    first, second = (cut(whole, 0.1, generator(seed, "validation")) for seed in (0, 1))
    for rest, aside in (first, second):
        assert sorted(rest.ids.tolist() + aside.ids.tolist()) == list(range(150))
        assert aside.labels.bincount().tolist() == [1, 2, 3, 4, 5]
        assert values(aside) == aside.ids.tolist()
        assert aside.ids.tolist() == sorted(aside.ids.tolist())
    assert first[1].ids.tolist() != second[1].ids.tolist()
    again = cut(whole, 0.1, generator(0, "validation"))
    assert again[1].ids.tolist() == first[1].ids.tolist()
    # a cut of a cut still knows the places in the whole
    inner = cut(first[0], 0.5, generator(0, "again"))[1]
    assert values(inner) == inner.ids.tolist()
    assert [len(some) for some in cut(whole, 0.0, generator(0, "none"))] == [150, 0]
    with pytest.raises(ValueError, match=r"fraction is 1\.0"):
        cut(whole, 1.0, generator(0, "all"))


def test_every_image_of_a_class_is_as_likely_set_aside() -> None:
    labels = torch.tensor([0, 1, 0, 1, 1, 0, 1, 0])
    whole = Split(torch.zeros(8, 1, 1, 1, dtype=torch.uint8), labels)
    counts = torch.zeros(8)
    for seed in range(400):
        counts[cut(whole, 0.25, generator(seed, "fair"))[1].ids] += 1
    # 400 draws of 1 in 4, five standard deviations
    assert (counts - 100).abs().max() < 5 * (400 * 0.25 * 0.75) ** 0.5


def test_a_part_of_a_data_set_is_a_data_set_of_its_own() -> None:
    whole, found = catalog.load("digits"), catalog.load("digits(train=100, test=30)")
    assert found.name == "digits(train=100, test=30)"
    assert (len(found.train), len(found.test)) == (100, 30)
    assert torch.bincount(found.train.labels).tolist() == [10] * 10
    assert torch.equal(found.train.images, part(whole.train, 100).images)
    assert torch.equal(found.train.ids, torch.arange(100))
    assert torch.allclose(found.mean, found.train.images.float().mean((0, 2, 3)) / 255)
    assert found.digest != whole.digest
    assert not found.flip
    assert found.pin == whole.pin == ""
    assert len(catalog.load("digits(test=30)").train) == len(whole.train)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits(train=0)", "train is 0 of digits: take from 1 to 1438 images"),
        ("digits(test=9999)", "test is 9999 of digits: take from 1 to 359 images"),
        ("digits(train='all')", "train is all of digits"),
        ("digits(train=5, val=3)", "digits has no part 'val'; it has: test, train"),
        ("digits(train=5", "no dataset is called"),
        ("digtis(train=5)", "did you mean digits?"),
    ],
)
def test_parts_that_cannot_be_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        catalog.load(name)


def test_a_folder_may_have_brackets_in_its_name_and_be_taken_in_part(tmp_path: Path) -> None:
    place = folder(tmp_path / "mine (2)", tree())
    assert catalog.load(str(place)).name == "mine (2)"
    found = catalog.load(f"{place}(train=2)")
    assert found.name == "mine (2)(train=2)"
    assert found.pin == found.digest


def test_parts_are_balanced_fixed_and_nested() -> None:
    labels = torch.arange(5).repeat_interleave(torch.tensor([2, 20, 30, 40, 50]))
    whole = Split(torch.arange(142, dtype=torch.uint8).reshape(142, 1, 1, 1), labels)
    ten, fifty = part(whole, 10), part(whole, 50)
    assert ten.labels.bincount().tolist() == [2] * 5
    assert fifty.labels.bincount().tolist() == [2, 12, 12, 12, 12]
    assert {*ten.ids.tolist()} < {*fifty.ids.tolist()}
    assert values(ten) == ten.ids.tolist() == part(whole, 10).ids.tolist()
    with pytest.raises(ValueError, match="cannot take 143 of 142"):
        part(whole, 143)


def test_a_split_counts_and_keeps_its_ids() -> None:
    some = splits.Split(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.zeros(3).long())
    assert len(some) == 3
    assert some.take(torch.tensor([2, 0])).ids.tolist() == [2, 0]


def test_a_folder_is_called_by_its_name_and_never_by_a_path_or_a_name_of_others(
    tmp_path: Path,
) -> None:
    for name, expected in (("mine", "mine"), ("cifar10", "cifar10-folder")):
        for place in ("train/a", "train/b", "test/a", "test/b"):
            (tmp_path / name / place).mkdir(parents=True)
            Image.new("RGB", (8, 8), "red" if place.endswith("a") else "blue").save(
                tmp_path / name / place / "1.png"
            )
        for _ in range(2):  # read, then kept
            assert catalog.load(str(tmp_path / name)).name == expected


def test_the_side_is_part_of_a_datasets_name(tmp_path: Path) -> None:
    found = catalog.load("photos(train=20)", side=16)
    assert found.name == "photos(train=20, side=16)"
    assert found.train.images.shape == (20, 3, 16, 16)
    assert torch.equal(found.train.images, catalog.load(found.name).train.images)
    assert (catalog.facts(found.name).train, catalog.facts(found.name).side) == (20, 16)
    # each image as a file of the same pixels would be scaled
    whole = catalog.load("photos(train=20)").train.images[3]
    image = Image.fromarray(whole.permute(1, 2, 0).numpy())
    expected = np.asarray(image_files.square(image, 16)).transpose(2, 0, 1)
    assert found.train.images[3].numpy().tolist() == expected.tolist()
    # the side that it has anyway is no other dataset
    assert catalog.load("digits", side=8).name == "digits"
    place = folder(tmp_path / "mine", tree())
    sized = catalog.load(f"{place}(side=4)")
    assert (sized.name, sized.train.images.shape[-1]) == ("mine(side=4)", 4)
    assert sized.pin != catalog.load(str(place)).pin


@pytest.mark.parametrize(
    ("name", "side", "message"),
    [
        ("digits(side=0)", None, "side is 0 of digits: give 1 to 4096 pixels"),
        ("digits(side=8.5)", None, "side is 8.5 of digits: give 1 to 4096 pixels"),
        ("digits", 5000, "side is 5000 of digits: give 1 to 4096 pixels"),
        ("digits(side=9)", 10, "digits(side=9) says another side than 10: remove one of the two"),
    ],
)
def test_sides_that_cannot_be_are_refused(name: str, side: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        catalog.load(name, side=side)
