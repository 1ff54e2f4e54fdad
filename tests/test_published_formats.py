"""Published datasets in every published form: what is read, what is refused, what is missing."""

import gzip
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_files import archive, folder, image_file, tree, values
from scipy.io import savemat

from bench.data import catalog
from bench.data.catalog import load
from bench.errors import Missing

pytestmark = pytest.mark.usefixtures("own_cache")


def idx(path: Path, stem: str, array: np.ndarray, packed: bool) -> None:
    data = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    data += array.astype(np.uint8).tobytes()
    if packed:
        (path / f"{stem}.gz").write_bytes(gzip.compress(data))
    else:
        (path / stem).write_bytes(data)


@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist_is_read_packed_or_not(tmp_path: Path, packed: bool) -> None:
    place = tmp_path / "fashion-mnist"
    place.mkdir()
    pixels = np.arange(3 * 28 * 28).reshape(3, 28, 28) % 251
    for kind, count in (("train", 3), ("t10k", 2)):
        idx(place, f"{kind}-images-idx3-ubyte", pixels[:count], packed)
        idx(place, f"{kind}-labels-idx1-ubyte", np.arange(count) + 4, packed)
    data = load("fashion-mnist", root=tmp_path)
    assert np.array_equal(data.train.images.numpy()[:, 0], pixels)
    assert data.test.labels.tolist() == [4, 5]
    assert data.source == str(place)
    for file in place.glob("t10k-labels*"):
        file.unlink()
    with pytest.raises(Missing, match="lacks t10k-labels-idx1-ubyte"):
        load("fashion-mnist", root=tmp_path)


def test_debians_fashion_mnist_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("the package dataset-fashion-mnist is not installed")
    monkeypatch.setattr(catalog, "SYSTEM", Path("/usr/share/datasets"))
    data = load("fashion-mnist")
    assert (len(data.train), len(data.test)) == (60_000, 10_000)
    assert float(data.mean) == pytest.approx(0.2860, abs=5e-5)
    assert float(data.std) == pytest.approx(0.3530, abs=5e-5)


PIXELS = np.random.default_rng(0).integers(256, size=(6, 3072), dtype=np.uint8)


def cifar10_python() -> dict[str, bytes]:
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    files = {
        name: pickle.dumps({"data": PIXELS[k : k + 1], "labels": [k % 2]}, protocol=2)
        for k, name in enumerate(names)
    }
    return files | {"batches.meta": pickle.dumps({"label_names": ["ant", "bee"]}, protocol=2)}


def cifar10_binary() -> dict[str, bytes]:
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    files = {name: bytes([k % 2]) + PIXELS[k].tobytes() for k, name in enumerate(names)}
    return files | {"batches.meta.txt": b"ant\nbee\n\n"}


def cifar100_python() -> dict[str, bytes]:
    def batch(rows: slice) -> bytes:
        count = len(PIXELS[rows])
        found = {"data": PIXELS[rows], "fine_labels": [7] * count, "coarse_labels": [1] * count}
        return pickle.dumps(found, protocol=2)

    meta = pickle.dumps({"fine_label_names": [f"c{k}" for k in range(100)]}, protocol=2)
    return {"train": batch(slice(5)), "test": batch(slice(5, 6)), "meta": meta}


def cifar100_binary() -> dict[str, bytes]:
    rows = [bytes([1, 7]) + row.tobytes() for row in PIXELS]
    names = "\n".join(f"c{k}" for k in range(100)).encode()
    return {
        "train.bin": b"".join(rows[:5]),
        "test.bin": rows[5],
        "fine_label_names.txt": names,
    }


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("name", "place", "make", "labels"),
    [
        ("cifar10", "cifar-10-batches-py", cifar10_python, [0, 1, 0, 1, 0]),
        ("cifar10", "cifar-10-batches-bin", cifar10_binary, [0, 1, 0, 1, 0]),
        ("cifar100", "cifar-100-python", cifar100_python, [7] * 5),
        ("cifar100", "cifar-100-binary", cifar100_binary, [7] * 5),
    ],
)
def test_cifar_is_read_in_every_published_form(
    tmp_path: Path,
    name: str,
    place: str,
    make: Callable[[], dict[str, bytes]],
    labels: list[int],
    packed: bool,
) -> None:
    folder(tmp_path / place, make())
    if packed:
        stem = place.replace("batches-py", "python").replace("batches-bin", "binary")
        with tarfile.open(tmp_path / f"{stem}.tar.gz", "w:gz") as file:
            file.add(tmp_path / place, place)
        (tmp_path / place).rename(tmp_path / "gone")
    data = load(name, root=tmp_path)
    assert np.array_equal(data.train.images.flatten(1).numpy(), PIXELS[:5])
    assert np.array_equal(data.test.images.flatten(1).numpy(), PIXELS[5:])
    assert data.train.images.shape == (5, 3, 32, 32)
    assert data.train.labels.tolist() == labels
    assert data.classes[1] in ("bee", "c1")


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_a_batch_with_code_in_it_runs_nothing(tmp_path: Path) -> None:
    files = cifar10_python() | {"test_batch": pickle.dumps({"data": Hostile(tmp_path / "owned")})}
    folder(tmp_path / "cifar-10-batches-py", files)
    with pytest.raises(ValueError, match=r"test_batch is not a CIFAR batch: it asks for .*\.mkdir"):
        load("cifar10", root=tmp_path)
    assert not (tmp_path / "owned").exists()


def test_incomplete_files_are_named(tmp_path: Path) -> None:
    files = cifar10_python()
    del files["data_batch_3"]
    folder(tmp_path / "cifar-10-batches-py", files)
    with pytest.raises(Missing, match="incomplete: it lacks data_batch_3"):
        load("cifar10", root=tmp_path)
    cut_off = cifar10_binary() | {"data_batch_2.bin": b"123"}
    folder(tmp_path / "other" / "cifar-10-batches-bin", cut_off)
    with pytest.raises(ValueError, match=r"data_batch_2\.bin in .* is cut off: 3 bytes"):
        load("cifar10", root=tmp_path / "other")


def tiny() -> dict[str, bytes]:
    files = {"wnids.txt": b"n2\nn1\n", "words.txt": b"n1\tant\nn2\tbee\n"}
    for index, label in enumerate(("n1", "n2")):
        for k in range(2):
            name = f"train/{label}/images/{label}_{k}.JPEG"
            files[name] = image_file(100 * index + 40 * k, (64, 64), "JPEG")
        files[f"train/{label}/{label}_boxes.txt"] = b""
    files["val/images/val_0.JPEG"] = image_file(200, (64, 64), "JPEG")
    files["val/images/val_1.JPEG"] = image_file(220, (64, 64), "JPEG")
    files["val/val_annotations.txt"] = b"val_0.JPEG\tn2\t0\t0\t9\t9\nval_1.JPEG\tn1\t0\t0\t9\t9\n"
    return {f"tiny-imagenet-200/{name}": data for name, data in files.items()}


@pytest.mark.parametrize("packed", [True, False])
def test_tiny_imagenet_takes_its_test_labels_from_the_annotations(
    tmp_path: Path, packed: bool
) -> None:
    if packed:
        archive(tmp_path / "tiny-imagenet-200.zip", tiny())
    else:
        folder(tmp_path, tiny())
    data = load("tiny-imagenet", root=tmp_path)
    assert data.classes == ("n1", "n2")
    assert values(data.train) == [0, 40, 100, 140]
    assert values(data.test) == [220, 200]
    assert data.train.images.shape == (4, 3, 64, 64)


def test_tiny_imagenet_that_is_half_there_says_so(tmp_path: Path) -> None:
    for number, lacking in enumerate(("val/val_annotations.txt", "val/images/val_1.JPEG")):
        files = tiny()
        del files[f"tiny-imagenet-200/{lacking}"]
        folder(tmp_path / str(number), files)
        with pytest.raises(Missing, match=f"incomplete: it lacks {lacking}"):
            load("tiny-imagenet", root=tmp_path / str(number))


def test_flowers_keep_their_official_split(tmp_path: Path) -> None:
    place = tmp_path / "flowers-102"
    files = {f"jpg/image_{k:05d}.jpg": image_file(20 * k, (8 + k, 9), "JPEG") for k in range(1, 7)}
    folder(place, files)
    savemat(place / "imagelabels.mat", {"labels": [[1, 2, 2, 1, 1, 2]]})
    savemat(place / "setid.mat", {"trnid": [[3, 1]], "valid": [[2]], "tstid": [[4, 5, 6]]})
    data = load("flowers102", root=tmp_path)
    assert values(data.train) == [60, 20]
    assert data.train.labels.tolist() == [1, 0]
    assert data.test.labels.tolist() == [0, 0, 1]
    assert data.test.images.shape == (3, 3, 64, 64)
    assert load("flowers102", root=tmp_path, side=10).test.images.shape == (3, 3, 10, 10)


def test_the_first_place_wins_and_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(("root", "variable", "system")):
        archive(tmp_path / name / "cifar10-jpeg.zip", tree(train=number + 1))
    monkeypatch.setattr(catalog, "SYSTEM", tmp_path / "system")
    assert load("cifar10-jpeg").source == str(tmp_path / "system" / "cifar10-jpeg.zip")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "variable"))
    assert len(load("cifar10-jpeg").train) == 4
    assert len(load("cifar10-jpeg", root=tmp_path / "root").train) == 2


def test_what_is_not_there_is_said_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"place cifar-10.* or .*tar\.gz in .*, or add --download"):
        load("cifar10", root=tmp_path)
    with pytest.raises(Missing, match="nowhere is not there: give a folder or zip"):
        load(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="did you mean cifar10"):
        load("cifar-10")
    with pytest.raises(Missing, match="cifar10-jpeg has no publisher"):
        load("cifar10-jpeg", root=tmp_path, download=True)
    assert [*catalog.names()][:2] == ["digits", "photos"]


def test_downloads_are_asked_for_and_their_failure_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(root: str, download: bool) -> None:
        asked.append((root, download))
        folder(Path(root) / "cifar-10-batches-py", cifar10_python())

    def fail(root: str, download: bool) -> None:
        raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", fetch)
    monkeypatch.setattr("torchvision.datasets.CIFAR100", fail)
    assert len(load("cifar10", root=tmp_path, download=True).train) == 5
    assert asked == [(str(tmp_path), True)]
    with pytest.raises(Missing, match=r"could not download cifar100 to .*: File not found"):
        load("cifar100", root=tmp_path, download=True)


@pytest.mark.slow
def test_a_tiny_imagenet_archive_is_read_by_its_path(bench_data_given: Path) -> None:
    path = bench_data_given / "tiny-imagenet-200-mini.zip"
    if not path.exists():
        pytest.skip("needs the small Tiny-ImageNet archive")
    data = load(str(path))
    assert data.train.images.shape == (8000, 3, 64, 64)
    assert data.test.labels.bincount().tolist() == [10] * 200


@pytest.fixture
def bench_data_given(bench_data: Path) -> Path:
    """The folder with images; looked up before the variable is taken away."""
    return bench_data
