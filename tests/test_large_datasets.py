"""Datasets too large for memory: read from their files, the same bits for any number of threads."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import noise
from PIL import Image
from torch import Tensor

from augmentations import Cutout
from augmentations.base import Ramp
from bench.data import binary_formats, catalog, file_images, splits, streaming
from bench.data.dataset import Dataset
from bench.data.file_images import FileImages
from bench.data.loader import batches
from bench.data.streaming import StreamingLoader, open_loader
from bench.models import networks
from bench.training import loop
from bench.training.recipes import Recipe


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def folder(path: Path, train: int = 20, test: int = 6) -> Path:
    for part, count in (("train", train), ("test", test)):
        for number, name in enumerate(("ant", "bee", "cat")):
            (path / part / name).mkdir(parents=True)
            for k in range(count):
                content = noise(1000 * number + k + 500 * (part == "test"))
                (path / part / name / f"{k:03}.png").write_bytes(content)
    return path


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Dataset, Dataset]:
    """The same images in memory and in their files."""
    path = str(folder(tmp_path / "mine"))
    in_memory = catalog.load(path)
    monkeypatch.setattr(file_images, "LARGEST_IN_MEMORY", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    return in_memory, catalog.load(path)


def test_images_in_files_are_those_in_memory(both: tuple[Dataset, Dataset]) -> None:
    one, other = both
    assert isinstance(one.train.images, Tensor)
    assert isinstance(other.train.images, FileImages)
    for name in ("train", "test"):
        whole, images = getattr(one, name), getattr(other, name).images
        assert images.shape == whole.images.shape
        assert torch.equal(images[:], whole.images)
        assert torch.equal(getattr(other, name).labels, whole.labels)
    images, whole = other.train.images, one.train.images
    places = torch.tensor([7, 0, 7, 59])
    assert torch.equal(images[places], whole[places])
    assert torch.equal(images[5], whole[5])
    assert torch.equal(images[-1], whole[-1])
    assert torch.equal(images[other.train.labels == 2], whole[one.train.labels == 2])
    assert torch.equal(other.train.take(places).images[1:3], whole[places][1:3])
    assert torch.equal(one.mean, other.mean)
    assert torch.equal(one.std, other.std)
    for (a, b), (c, d) in zip(
        batches(one.test, 7, "cpu"), batches(other.test, 7, "cpu"), strict=True
    ):
        assert torch.equal(a, c)
        assert torch.equal(b, d)


def test_a_part_that_fits_is_in_memory(
    both: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = both
    fits = 3 * 12 * 12 * (9 + 6)
    monkeypatch.setattr(file_images, "LARGEST_IN_MEMORY", fits)
    small = catalog.load(f"{other.source}(train=9, test=6)")
    assert isinstance(small.train.images, Tensor)
    assert torch.equal(small.train.images, splits.part(one.train, 9).images)
    monkeypatch.setattr(file_images, "LARGEST_IN_MEMORY", fits - 1)
    large = catalog.load(f"{other.source}(train=9, test=6)")
    assert isinstance(large.train.images, FileImages)
    assert large.digest != other.digest


@pytest.mark.parametrize(
    "fields",
    [{}, {"policy": "trivialaugment"}, {"policy": "keep-autoaugment"}, {"mix": "cutmix"}],
    ids=str,
)
def test_without_masks_a_training_from_files_is_that_from_memory(
    both: tuple[Dataset, Dataset], fields: dict[str, str]
) -> None:
    recipe = Recipe(data="mine", model="resnet8", epochs=2, batch_size=16, validation=0.2, **fields)
    one, other = (loop.train(recipe, 3, data) for data in both)
    for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(a, b)
    assert one.metrics["accuracy"] == other.metrics["accuracy"]


def test_the_number_of_threads_changes_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(folder(tmp_path / "mine"))
    monkeypatch.setattr(file_images, "LARGEST_IN_MEMORY", 0)
    recipe = Recipe(
        data="mine", model="resnet8", augmentation=Cutout(length=5), epochs=2, batch_size=7,
        policy="trivialaugment", validation=0.2,
    )  # fmt: skip
    found = []
    for workers in (1, 2, 7):
        data = catalog.load(path, workers=workers)
        assert data.train.images.workers == workers
        found.append(loop.train(recipe, 3, data).network.state_dict())
    assert all(torch.equal(found[0][key], one[key]) for one in found[1:] for key in one)


def drawn(data: Dataset, batch_size: int, epoch: int = 1, seed: int = 0) -> dict[int, Tensor]:
    loader = open_loader(
        data.train, batch_size=batch_size, seed=seed, padding=2, flip=True, device="cpu",
        augmentation=Cutout(length=4, share=Ramp(0.7)),
    )  # fmt: skip
    assert isinstance(loader, StreamingLoader)
    return {
        int(place): torch.cat([image, mask.float()])
        for batch in loader.epoch(epoch, 0.5)
        for place, image, mask in zip(batch.ids, batch.images, batch.mask, strict=True)
    }


def test_masks_depend_on_seed_epoch_and_image_and_not_on_the_batch(
    both: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = both[1]
    monkeypatch.setattr(streaming, "BLOCK", 16)  # several blocks in 60 images
    one = drawn(data, 60)
    assert len(one) == 60
    for size in (3, 16, 25):
        other = drawn(data, size)
        assert all(torch.equal(one[place], other[place]) for place in other)
    for other in (drawn(data, 60, epoch=2), drawn(data, 60, seed=1)):
        assert sum(torch.equal(one[place], other[place]) for place in one) < 10
    # the share of the images that get one, and masks as large as Cutout's
    sizes = torch.stack([each[3].sum() for each in one.values()])
    assert 30 <= int((sizes > 0).sum()) <= 54
    assert int(sizes.max()) == 16


def test_a_changed_file_is_another_dataset_and_what_was_measured_is_kept(
    both: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = both[1]
    with monkeypatch.context() as patch:
        patch.setattr(FileImages, "__getitem__", None)  # decodes nothing the second time
        again = catalog.load(data.source)
    assert again.digest == data.digest
    assert torch.equal(again.mean, data.mean)
    file = Path(data.source) / "train" / "ant" / "000.png"
    file.write_bytes(noise(0, (12, 13)))
    assert catalog.load(f"{data.source}(side=12)").digest != data.digest


def test_images_of_many_sizes_in_files_become_squares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder(tmp_path / "mine")
    (path / "test" / "cat" / "005.png").write_bytes(noise(1, (9, 12)))
    monkeypatch.setattr(file_images, "LARGEST_IN_MEMORY", 0)
    data = catalog.load(str(path))
    assert isinstance(data.train.images, FileImages)
    assert data.train.images.shape == (60, 3, 64, 64)
    assert catalog.load(f"{path}(side=8)").test.images[-1].shape == (3, 8, 8)


def test_a_damaged_file_ends_a_training_with_its_name(
    both: tuple[Dataset, Dataset],
) -> None:
    data = both[1]
    (Path(data.source) / "train" / "bee" / "007.png").write_bytes(b"no image")
    recipe = Recipe(data="mine", model="resnet8", epochs=1, batch_size=16)
    with pytest.raises(
        ValueError, match=r"train/bee/007\.png in .* cannot be read: it is not an image"
    ):
        loop.train(recipe, 0, data)


def test_too_little_memory_is_said_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder(tmp_path / "mine")
    monkeypatch.setattr("bench.data.image_files.memory", lambda: 50_000)
    expected = "78 images of side 12 need 0.0 GB of memory, more than half of the 0.0 GB"
    with pytest.raises(ValueError, match=expected):
        catalog.load(str(path))


PEAK = """
import re, sys, torch
from pathlib import Path
from bench.data import catalog, file_images
from bench.data.streaming import memory, open_loader
import augmentations
torch.set_num_threads(1)
def status(what):
    return 1024 * int(re.search(what + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
small = catalog.load(sys.argv[1])
def epoch(data, size):
    loader = open_loader(data.train, batch_size=size, seed=0, padding=2, flip=True, device="cpu",
                         augmentation=augmentations.Cutout(length=8))
    for batch in loader.epoch(0, 1.0):
        batch.images.sum()
epoch(small, 4)
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
before = status("VmRSS")
if sys.argv[3] == "files":
    file_images.LARGEST_IN_MEMORY = 0
data = catalog.load(sys.argv[2])
if sys.argv[3] == "files":
    epoch(data, 8)
    print(status('VmHWM') - before, memory(data, 8, masks=True, policy=False))
else:
    print(status('VmHWM') - before, data.train.images.nbytes + data.test.images.nbytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("where", ["memory", "files"])
def test_the_memory_that_is_stated_is_held(tmp_path: Path, where: str) -> None:
    small, large = folder(tmp_path / "small", 2, 1), folder(tmp_path / "large", 700, 50)
    words = [str(small), f"{large}(side=224)", where]
    code = [sys.executable, "-c", PEAK, *words]
    found = subprocess.run(code, capture_output=True, text=True, check=True, env=os.environ)
    peak, stated = map(int, found.stdout.split())
    whole = 2250 * 3 * 224 * 224
    if where == "memory":
        assert stated == whole
        assert 0.9 * stated < peak < 1.25 * stated  # one copy, never two
    else:
        assert peak < stated < whole


# --- what torchvision's users expect ------------------------------------------------------------


def rotated() -> bytes:
    file = io.BytesIO()
    image = Image.open(io.BytesIO(noise(1, (8, 8))))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(file, "JPEG", exif=exif)
    return file.getvalue()


def palette() -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(noise(2, (8, 8)))).quantize(8).save(file, "PNG", transparency=3)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        rotated,
        palette,
        lambda: noise(3, (8, 8), mode="RGBA"),
        lambda: noise(4, (8, 8), mode="LA"),
        lambda: noise(5, (8, 8), mode="L"),
        lambda: noise(6, (8, 8), kind="JPEG", mode="CMYK"),
    ],
    ids=["EXIF orientation", "palette", "RGBA", "LA", "L", "CMYK"],
)
def test_pixels_are_those_of_torchvisions_image_folder(
    tmp_path: Path, content: Callable[[], bytes]
) -> None:
    from torchvision.datasets import ImageFolder

    for part in ("train", "test"):
        for number, name in enumerate(("ant", "bee")):
            place = tmp_path / "mine" / part / name
            place.mkdir(parents=True)
            (place / "0.png").write_bytes(noise(number, (8, 8)))
            (place / "1.png").write_bytes(content())
    data = catalog.load(str(tmp_path / "mine"))
    theirs = ImageFolder(tmp_path / "mine" / "train")
    for place, (image, label) in enumerate(theirs):
        assert np.array_equal(data.train.images[place].permute(1, 2, 0).numpy(), np.asarray(image))
        assert int(data.train.labels[place]) == label


# --- a direct path to published files ------------------------------------------------------------


def test_a_path_to_published_files_is_that_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "somewhere" / "cifar-10-batches-py"
    place.mkdir(parents=True)
    asked = []

    def made() -> splits.Split:
        images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
        return splits.Split(images, torch.tensor([0, 1, 0, 1]))

    def read(path: Path) -> splits.Parts:
        asked.append(path)
        return splits.Parts(("a", "b"), made(), made())

    monkeypatch.setattr(binary_formats, "cifar10", read)
    data = catalog.load(str(place))
    assert asked == [place]
    assert (data.name, data.pin, data.source) == ("cifar10", "", str(place))
    assert catalog.load(f"{place}(train=2)").name == "cifar10(train=2)"


def test_a_stored_guide_that_needs_too_much_memory_is_refused(
    both: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.execution.progress import Silent
    from bench.execution.workspace import Workspace
    from bench.points import guides

    with pytest.raises(ValueError, match=r'take a part such as "mine\(train=20000\)"'):
        guides.fixed("everywhere", both[1], Workspace(results=tmp_path), Silent())


def test_a_network_is_built_for_images_in_files(both: tuple[Dataset, Dataset]) -> None:
    network = networks.build_for(both[1], "resnet8", seed=0)
    assert network(both[1].train.images[:2].float() / 255).shape == (2, 3)


def test_images_that_are_scaled_up_are_refused_where_they_do_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bench.data.image_files.memory", lambda: 1_000_000)
    with pytest.raises(ValueError, match=r"images of side 512 need 0.4 GB .* choose a smaller"):
        catalog.load("digits(train=40, test=10, side=512)")


@pytest.mark.parametrize("content", [b"no image", None])
def test_a_bad_file_among_many_is_named(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a dataset that stays in its files only headers are read at first."""
    path = folder(tmp_path / "mine")
    bad = path / "train" / "bee" / "007.png"
    if content is None:
        monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
        monkeypatch.setattr("PIL.Image._decompression_bomb_check", bomb)
    else:
        bad.write_bytes(content)
    monkeypatch.setattr(file_images, "LARGEST_IN_MEMORY", 0)
    with pytest.raises(ValueError, match=r"\.png in .* cannot be read: "):
        catalog.load(str(path))


def bomb(size: tuple[int, int]) -> None:
    if size[0] > 12:
        raise Image.DecompressionBombError("too large")
