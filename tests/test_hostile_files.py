"""Files from outside are hostile: each reader gives something valid or one clear line.

Valid files are cut, flipped and grown at random places; crafted ones lie about their size, are
nested too deeply or carry code. Whatever they hold, nothing is executed or written, and memory
stays bounded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import io
import json
import os
import pickle
import random
import shutil
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save as pack
from scipy.io import savemat

from bench import registry
from bench.data import binary_formats, catalog
from bench.data.dataset import Dataset
from bench.data.splits import Split
from bench.errors import Missing
from bench.files import checksums, json_text, tensor_files
from bench.models import networks, weight_files
from bench.points.exchange import from_numpy, to_numpy
from bench.points.store import Points
from bench.records.record import Record
from bench.records.store import Store
from bench.records.validation import PLAIN
from bench.reporting import cost_table
from bench.robustness import batches, occlusion
from bench.robustness.pass_counter import peak_memory
from bench.training import checkpoints
from bench.training.recipes import Recipe

TIMES = 40  # damaged copies of each file
ABOUT = {"trial": {"attack": "jsma"}, "seed": 0, "goal": 0}
IDS = torch.arange(3)


@cache
def tiny() -> Dataset:
    """Eight pictures of four by five pixels."""
    labels = torch.arange(8) % 2
    images = torch.arange(160).reshape(8, 1, 4, 5).to(torch.uint8)
    both = Split(images, labels)
    mean = torch.tensor([0.5])
    return Dataset("tiny", ("a", "b"), both, both, mean, mean, False, "0123", "made here")


def network() -> networks.Normalised:
    return networks.build("resnet8", classes=2, channels=1, side=8, mean=[0.5], std=[0.5], seed=0)


def trainer(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def points() -> Points:
    changed = torch.rand(8, 4, 5, generator=torch.Generator().manual_seed(0)) < 0.3
    return Points.of(changed, changed.flatten(1).any(1), {"data": "tiny", "digest": "0123"})


def record(**changes: Any) -> Record:
    fields: dict[str, Any] = {
        "kind": "run", "key": "abcdef012345", "seed": 0, "job": {"data": "digits", "epochs": 3},
        "labels": {"augmentation": "none", "model": "resnet8", "data": "digits"},
        "metrics": {"accuracy": 0.5, "seconds": 1.5}, "machine": {"device": "cpu"},
        "curve": [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}],
    }  # fmt: skip
    return Record(**fields | changes)


# --- what is read, and who reads it -----------------------------------------------------------


def weights(path: Path) -> object:
    model = network()
    before = [each.clone() for each in model.state_dict().values()]
    try:
        weight_files.load_weights(model, path)
    except ValueError:
        # the network is as it was
        assert all(map(torch.equal, before, model.state_dict().values()))
        raise
    return model


def checkpoint(path: Path) -> object:
    """The state file; what describes it holds the checksum of what is there."""
    about = path.with_name("checkpoint.json")
    digest = checksums.of_file(path)
    entry = dict.fromkeys(checkpoints.ENTRY, 1)
    about.write_text(json.dumps({"state": path.name, "sha256": digest, "curve": [entry]}))
    return resumed(about)


def described(path: Path) -> object:
    """What describes a state that is whole."""
    path.with_name("epoch-1.safetensors").write_bytes(checkpoint_file())
    return resumed(path)


def resumed(path: Path) -> object:
    model = network()
    before = [each.clone() for each in model.state_dict().values()]
    optimiser = trainer(model)
    curve = checkpoints.resume(path.parent, model, optimiser)
    if not curve:
        assert all(map(torch.equal, before, model.state_dict().values()))
        assert not optimiser.state_dict()["state"]
    model(torch.rand(2, 1, 8, 8)).sum().backward()
    optimiser.step()
    return curve


def stored(path: Path) -> object:
    store = Store(path.parent)
    found = store.all()
    assert all(isinstance(one, Record) and PLAIN.fullmatch(one.key) for one in found)
    for one in found:
        assert float(sum(float(value) for value in one.metrics.values())) is not None
        store.curve(one)
    return found


def curve(path: Path) -> object:
    folder = path.parent / "curves"
    folder.mkdir(exist_ok=True)
    path.replace(folder / f"{record().name}.json")
    found = Store(path.parent).curve(record(curve=()))
    assert all(isinstance(value, int | float) for entry in found for value in entry.values())
    return found


def recipe(path: Path) -> object:
    return Recipe.from_json(json_text.parse(path.read_bytes())).key


def known_points(path: Path) -> object:
    found = Points.load(path)
    found.fits(tiny())
    return found.guide(), found.summary()


def imported_points(path: Path) -> object:
    found = from_numpy(path, tiny())
    found.save(path.with_suffix(".safetensors"))
    return known_points(path.with_suffix(".safetensors"))


def point_seconds(path: Path) -> object:
    (path.parent / "points").mkdir(exist_ok=True)
    path.replace(path.parent / "points" / path.name)
    return cost_table.point_seconds(path.parent)


def block(path: Path) -> object:
    return batches.load(path, ABOUT, IDS)


def occluded(path: Path) -> object:
    folder = path.parent / "weights"
    folder.mkdir(exist_ok=True)
    path.replace(folder / f"{record().name}.occlusion.json")
    return occlusion.stored_curve(record(), path.parent)


def pictures(path: Path) -> object:
    return loaded(catalog.load(str(path)))


def loaded(data: Dataset) -> object:
    for part in (data.train, data.test):
        assert part.images.dtype == torch.uint8
        assert len(part.labels) == len(part.images) > 0
        assert 0 <= int(part.labels.min()) <= int(part.labels.max()) < len(data.classes)
    return data


def named(name: str, place: str, instead: str | None = None) -> Callable[[Path], object]:
    """Reads a data set whose file at a place is the given one; ``instead`` of what is left out."""

    def read(path: Path) -> object:
        root = path.parent / "root"
        for file, content in {**sound(name), place: path.read_bytes()}.items():
            if file == place or instead is None or not file.startswith(instead):
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                (root / file).write_bytes(content)
        return loaded(catalog.load(name, root=root))

    return read


# --- valid files ------------------------------------------------------------------------------


def weights_file() -> bytes:
    model = network()
    return tensor_files.pack(model.network.state_dict(), {"data": "x"})


def foreign_weights_file() -> bytes:
    """Without a checksum."""
    return pack(network().network.state_dict())


@cache
def checkpoint_file() -> bytes:
    model = network()
    optimiser = trainer(model)
    model(torch.rand(2, 1, 8, 8)).sum().backward()
    optimiser.step()
    tensors = {f"network.{name}": each for name, each in model.state_dict().items()}
    for place, state in optimiser.state_dict()["state"].items():
        tensors[f"momentum.{place}"] = state["momentum_buffer"]
    return tensor_files.pack(tensors, {})


def checkpoint_text() -> bytes:
    entry = dict.fromkeys(sorted(checkpoints.ENTRY), 1)
    digest = checksums.of_bytes(checkpoint_file())
    return json.dumps({"state": "epoch-1.safetensors", "sha256": digest, "curve": [entry]}).encode()


def records_file() -> bytes:
    lines = [json.dumps(record(seed=seed).to_json()) for seed in range(3)]
    return "\n".join(lines).encode()


def points_file() -> bytes:
    found = points()
    tensors = {"places": found.places, "offsets": found.offsets, "reached": found.reached}
    return tensor_files.pack(tensors, {"about": json.dumps(found.about | {"seconds": 1.5})})


def block_file() -> bytes:
    text = json.dumps(
        {
            "about": ABOUT,
            "took": {"seconds": 1.5, "passing": 1.5, "memory": None, "errors": {"1": "x"}},
        }
    )
    tensors = {
        "ids": IDS, "adversarial": torch.rand(3, 1, 4, 5),
        "forwards": torch.ones(3).long(), "backwards": torch.ones(3).long(),
    }  # fmt: skip
    return tensor_files.pack(tensors, {"job": text}, covered="job")


def occlusion_file() -> bytes:
    entry = {"share": 0.1, "random": 0.5, "important": 0.4}
    about = {"version": occlusion.VERSION, "weights": "0", "data": "0", "curve": [entry]}
    return json.dumps(about).encode()


def picture(kind: str = "PNG", side: int = 6) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(256, size=(side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def zip_file(kind: str = "PNG", **more: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in ("train", "test"):
            for label in ("a", "b"):
                archive.writestr(f"{part}/{label}/1.{kind.lower()}", picture(kind))
        for name, content in more.items():
            archive.writestr(name, content)
    return file.getvalue()


def cifar_batch(count: int = 2) -> bytes:
    pixels = (np.arange(count * 3072) % 251).astype(np.uint8).reshape(count, 3072)
    found = {"data": pixels, "labels": [0, 1][:count]}
    return pickle.dumps(found, protocol=2)


def idx(*shape: int) -> bytes:
    header = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    values = np.arange(np.prod(shape)) % (2 if len(shape) == 1 else 251)
    return header + values.astype(np.uint8).tobytes()


def matlab(**variables: list[list[int]]) -> bytes:
    file = io.BytesIO()
    savemat(file, variables)
    return file.getvalue()


@cache
def sound(name: str) -> dict[str, bytes]:
    """The files of a small but complete data set of that name."""
    if name == "cifar10":
        names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
        files = dict.fromkeys(names, cifar_batch())
        files |= {"batches.meta": pickle.dumps({"label_names": ["a", "b"]}, protocol=2)}
        return {f"cifar-10-batches-py/{each}": content for each, content in files.items()}
    if name == "fashion-mnist":
        parts = [(part, kind) for part in ("train", "t10k") for kind in ("images", "labels")]
        shapes = {"images": (2, 3, 3), "labels": (2,)}
        return {
            f"fashion-mnist/{part}-{kind}-idx{len(shapes[kind])}-ubyte": idx(*shapes[kind])
            for part, kind in parts
        }
    if name == "tiny-imagenet":
        files = {"wnids.txt": b"a\nb\n", "val/val_annotations.txt": b"0.JPEG\ta\n1.JPEG\tb\n"}
        files |= {f"val/images/{number}.JPEG": picture("JPEG", 64) for number in range(2)}
        files |= {f"train/{each}/images/0.JPEG": picture("JPEG", 64) for each in "ab"}
        return {f"tiny-imagenet-200/{each}": content for each, content in files.items()}
    files = {f"jpg/image_{k:05d}.jpg": picture("JPEG") for k in (1, 2)}
    files |= {"imagelabels.mat": matlab(labels=[[1, 2]])}
    files |= {"setid.mat": matlab(trnid=[[1, 2]], valid=[[1]], tstid=[[2, 1]])}
    return {f"flowers-102/{each}": content for each, content in files.items()}


def tar_file() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in sound("cifar10").items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


CIFAR, IDX = "cifar-10-batches-py", "fashion-mnist/train-images-idx3-ubyte"
READERS: dict[str, tuple[str, Callable[[Path], object], Callable[[], bytes]]] = {
    "weights": ("w.safetensors", weights, weights_file),
    "foreign weights": ("w.safetensors", weights, foreign_weights_file),
    "checkpoint": ("epoch-1.safetensors", checkpoint, checkpoint_file),
    "checkpoint.json": ("checkpoint.json", described, checkpoint_text),
    "records": ("records.jsonl", stored, records_file),
    "curve": ("c.json", curve, lambda: json.dumps(list(record().curve)).encode()),
    "recipe": ("r.json", recipe, lambda: json.dumps(Recipe(epochs=3).to_json()).encode()),
    "points": ("p.safetensors", known_points, points_file),
    "points metadata": ("p.safetensors", point_seconds, points_file),
    "points to import": ("p.npz", imported_points, lambda: to_numpy(points())),
    "attack block": ("b.safetensors", block, block_file),
    "occlusion curve": ("o.json", occluded, occlusion_file),
    "zip of PNG": ("a.zip", pictures, zip_file),
    "zip of JPEG": ("a.zip", pictures, lambda: zip_file("JPEG")),
    "cifar batch": ("b", named("cifar10", f"{CIFAR}/data_batch_2"), cifar_batch),
    "cifar names": (
        "b",
        named("cifar10", f"{CIFAR}/batches.meta"),
        lambda: pickle.dumps({"label_names": ["a", "b"]}, protocol=2),
    ),
    "cifar archive": ("b", named("cifar10", "cifar-10-python.tar.gz", instead=CIFAR), tar_file),
    "idx": ("i", named("fashion-mnist", IDX), lambda: idx(2, 3, 3)),
    "idx, packed": (
        "i",
        named("fashion-mnist", f"{IDX}.gz", instead=IDX),
        lambda: gzip.compress(idx(2, 3, 3)),
    ),
    "annotations": (
        "a",
        named("tiny-imagenet", "tiny-imagenet-200/val/val_annotations.txt"),
        lambda: b"0.JPEG\ta\n1.JPEG\tb\n",
    ),
    "labels of flowers": (
        "m", named("flowers102", "flowers-102/imagelabels.mat"), lambda: matlab(labels=[[1, 2]])
    ),
}  # fmt: skip
"""What is read → name of the file, who reads it, and a valid one."""


def harmed(content: bytes, chance: random.Random) -> bytes:
    """A file with a few places cut, flipped, overwritten, inserted, doubled or left out."""
    found = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 5))):
        start = chance.randrange(len(found) + 1) if chance.random() < 0.7 else chance.randrange(64)
        end = start + chance.choice((1, 2, 4, 8, 64))
        harm = chance.randrange(7)
        if harm == 0:
            found = found[:start]
        elif harm == 1 and start < len(found):
            found[start] ^= 1 << chance.randrange(8)
        elif harm == 2:
            found[start:end] = chance.randbytes(len(found[start:end]))
        elif harm == 3:
            found[start:start] = chance.randbytes(end - start)
        elif harm == 4:
            found[start:start] = found[start:end]
        elif harm == 5:
            del found[start:end]
        else:
            found[start:end] = chance.choice((b"\xff", b"\x00", b"9")) * (end - start)
    return bytes(found)


@pytest.fixture(autouse=True)
def _no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded pictures are not kept from one file to the next."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")


@cache
def valid(what: str) -> bytes:
    return READERS[what][2]()


def answer(what: str, content: bytes, folder: Path) -> str:
    """What reading a file of that content leads to: the error's text, or nothing."""
    name, read, _ = READERS[what]
    inner = folder / "inner"
    inner.mkdir(exist_ok=True)
    (inner / name).write_bytes(content)
    said = ""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*(set aside|cannot continue from)")
        try:
            read(inner / name)
        except (ValueError, Missing) as error:
            said = str(error)
            assert said
            assert "\n" not in said
            assert len(said) < 2000
    assert [each.name for each in folder.iterdir()] == ["inner"]
    shutil.rmtree(inner)
    return said


@pytest.mark.parametrize("what", READERS)
def test_a_whole_file_is_read(what: str, tmp_path: Path) -> None:
    name, read, _ = READERS[what]
    (tmp_path / name).write_bytes(valid(what))
    assert read(tmp_path / name)


@pytest.mark.slow
@pytest.mark.parametrize("what", READERS)
@settings(max_examples=TIMES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_a_harmed_file_is_read_or_refused_in_one_line(what: str, tmp_path: Path, seed: int) -> None:
    answer(what, harmed(valid(what), random.Random(seed)), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("what", READERS)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=64) | st.text(max_size=64).map(lambda text: text.encode()))
def test_any_bytes_are_read_or_refused_in_one_line(
    what: str, tmp_path: Path, content: bytes
) -> None:
    answer(what, content, tmp_path)


# --- files that are crafted -------------------------------------------------------------------


SIGNED = {
    "weights": ["conv1.weight", "linear.weight", "linear.bias", "other"],
    "checkpoint": ["network.network.linear.weight", "momentum.0", "momentum.999"],
    "points": ["places", "offsets", "reached", "other"],
    "points metadata": ["places"],
    "attack block": ["ids", "adversarial", "forwards", "backwards", "other"],
}
"""What is read → the tensors in it, and others."""
KINDS = [torch.int16, torch.int64, torch.bool, torch.float32, torch.bfloat16, torch.complex64]
TEXTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["size", "about", "took", "errors"]), inner, max_size=3)
    ),
    max_leaves=6,
).map(json.dumps)
TENSORS = st.builds(
    lambda kind, shape, value: torch.full(shape, value).to(kind),
    st.sampled_from(KINDS),
    st.lists(st.integers(0, 4), max_size=4),
    st.integers(-2, 9),
)


@pytest.mark.slow
@pytest.mark.parametrize("what", SIGNED)
@settings(max_examples=TIMES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), text=TEXTS, whole=st.booleans())
def test_a_file_whose_checksum_is_right_is_still_not_trusted(
    what: str, tmp_path: Path, data: st.DataObject, text: str, whole: bool
) -> None:
    tensors = data.draw(st.dictionaries(st.sampled_from(SIGNED[what]), TENSORS, max_size=3))
    if whole:  # one that is right but for some tensors
        path = tmp_path / "whole"
        path.write_bytes(valid(what))
        tensors = tensor_files.read(path)[0] | tensors if what != "attack block" else {
            "ids": IDS, "adversarial": torch.zeros(3, 1, 4, 5),
            "forwards": 1 * IDS, "backwards": 2 * IDS,
        } | tensors  # fmt: skip
        path.unlink()
    metadata = {"about": text, "job": text}
    if what == "attack block":
        content = tensor_files.pack(tensors, metadata, covered="job")
    else:
        content = tensor_files.pack(tensors, metadata)
    answer(what, content, tmp_path)


class Trap:
    """What makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("what", READERS)
def test_a_pickle_with_code_in_it_is_never_run(what: str, tmp_path: Path) -> None:
    trap = Trap(tmp_path / "inner" / "sprung")
    objects, saved = io.BytesIO(), io.BytesIO()
    np.savez(objects, places=np.array([trap], dtype=object))
    torch.save({"network": trap}, saved)
    for content in (objects.getvalue(), saved.getvalue(), pickle.dumps(trap), pickle.dumps([trap])):
        name, read, _ = READERS[what]
        (tmp_path / "inner").mkdir(exist_ok=True)
        (tmp_path / "inner" / name).write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.suppress(ValueError, Missing):
                read(tmp_path / "inner" / name)
        assert not trap.path.exists()


DEEP = b"[" * 100_000 + b"]" * 100_000


def nested(what: str) -> bytes:
    if what in ("points", "points metadata"):
        return tensor_files.pack(
            {"places": torch.zeros(0, 2).short(), "offsets": torch.zeros(9).long(),
             "reached": torch.zeros(8).bool()}, {"about": DEEP.decode()}
        )  # fmt: skip
    if what == "points to import":
        file = io.BytesIO()
        np.savez(file, masks=np.ones((8, 4, 5)), about=np.array(DEEP.decode()[:900]))
        return file.getvalue()
    if what == "attack block":
        return pack({"ids": IDS}, {"job": DEEP.decode(), "sha256": ""})
    return DEEP


@pytest.mark.parametrize(
    "what",
    [
        *("records", "curve", "recipe", "checkpoint.json", "occlusion curve"),
        *("points", "points metadata", "points to import", "attack block"),
    ],
)
def test_text_that_is_nested_too_deeply_is_refused(what: str, tmp_path: Path) -> None:
    answer(what, nested(what), tmp_path)


def lying(content: bytes, name: bytes, size: int) -> bytes:
    """A zip whose directory says that an entry is smaller than it is."""
    found = bytearray(content)
    for signature, place, start in ((b"PK\1\2", 24, 46), (b"PK\3\4", 22, 30)):
        for offset in range(len(found)):
            if found[offset:].startswith(signature) and found[offset + start :].startswith(name):
                found[offset + place : offset + place + 4] = struct.pack("<I", size)
    return bytes(found)


def unpacked_picture() -> bytes:
    """A picture entry that unpacks to 256 MiB, though it says 100 bytes."""
    zeros = io.BytesIO()
    with zipfile.ZipFile(zeros, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png"):
            archive.writestr(name, picture() if name != "train/a/1.png" else bytes(1 << 28))
    content = zeros.getvalue()
    # only the two headers of that entry, found by their place
    for signature, place in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        offset = content.index(signature) + place
        content = content[:offset] + struct.pack("<I", 100) + content[offset + 4 :]
    return content


def claiming(side: int) -> bytes:
    """A PNG of a few bytes whose header claims many pixels."""
    data = bytearray(picture())
    header = data[12:16] + struct.pack(">II", side, side) + data[24:29]
    data[12:33] = header + struct.pack(">I", zlib.crc32(header))
    return bytes(data)


def claiming_jpeg() -> bytes:
    data = bytearray(picture("JPEG"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", 65_500, 65_500)
    return bytes(data)


def claiming_array() -> bytes:
    """An ``.npz`` whose array claims 4 GiB and has 100 bytes."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (4294967296,), }"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(100)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("places.npy", array)
        archive.writestr("offsets.npy", array)
    return file.getvalue()


def claiming_tensors(shape: int, header: int = 0) -> bytes:
    about = {
        "network.network.linear.weight": {
            "dtype": "F32",
            "shape": [shape],
            "data_offsets": [0, 4 * shape],
        }
    }
    text = json.dumps(about).encode()
    return struct.pack("<Q", header or len(text)) + text + bytes(64)


def large_points() -> bytes:
    """Points of pictures with a billion pixels."""
    tensors = {"places": torch.zeros(1, 2).short(), "offsets": torch.ones(9).long()}
    tensors |= {"reached": torch.ones(8).bool()}
    tensors["offsets"][0] = 0
    about = {"data": "tiny", "digest": "0123", "size": [32_000, 32_000]}
    return tensor_files.pack(tensors, {"about": json.dumps(about)})


def deep_names() -> bytes:
    """Names that lie in 30,000 nested folders each."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(4):
            archive.writestr(f"train/{number}/" + "a/" * 30_000 + "1.png", b"")
    return file.getvalue()


def other_method() -> bytes:
    """A picture that unpacks to 256 MiB by a method that cannot do so piece by piece."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("train/a/1.png", bytes(1 << 28))
    return lying(file.getvalue(), b"train/a/1.png", 100)


def pickled(*codes: bytes) -> bytes:
    return b"\x80\x02" + b"".join(codes) + b"."


def laughs() -> bytes:
    """Ten thousand million labels in a list of lists of lists."""
    labels: list[Any] = [0] * 10
    for _ in range(9):
        labels = [labels] * 10
    return pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": labels}, protocol=2)


class Vast:
    """An array that claims 8 GiB."""

    def __reduce__(self) -> tuple[object, ...]:
        return np.ndarray, ((1 << 33,), "u1")


def archived(entry: tarfile.TarInfo, content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def long_name() -> bytes:
    """A tar whose first name has 256 MiB."""
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 1 << 28
    return archived(entry, bytes(1 << 28))


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a zip entry that lies about its size": ("zip of PNG", unpacked_picture),
    "a zip entry packed by another method": ("zip of PNG", other_method),
    "names in 30,000 folders": ("zip of PNG", deep_names),
    "a PNG of 900 million pixels": (
        "zip of PNG", lambda: zip_file(**{"train/a/2.png": claiming(30_000)})
    ),
    "a JPEG of 4,000 million pixels": (
        "zip of JPEG", lambda: zip_file("JPEG", **{"train/a/2.jpeg": claiming_jpeg()})
    ),
    "an array of 4 GiB": ("points to import", claiming_array),
    "points of a billion pixels": ("points", large_points),
    "a tensor of 4 TiB": ("foreign weights", lambda: claiming_tensors(1 << 40)),
    "a header of 64 GiB": ("foreign weights", lambda: claiming_tensors(16, 1 << 36)),
    "a state of 4 TiB": ("checkpoint", lambda: claiming_tensors(1 << 40)),
    "a pickle that remembers far ahead": (
        "cifar batch", lambda: pickled(b"}", b"r" + struct.pack("<I", 1 << 27))
    ),
    "a list of lists of lists": ("cifar batch", laughs),
    "a pickled array of 8 GiB": (
        "cifar batch", lambda: pickle.dumps({"data": Vast(), "labels": [0, 1]}, protocol=2)
    ),
    "a tar of one long name": ("cifar archive", long_name),
    "a gzip of zeros": ("idx, packed", lambda: gzip.compress(bytes(1 << 28))),
    "a Matlab file of zeros": (
        "labels of flowers", lambda: matlab(labels=[[0] * 100_000], more=[list(range(100_000))])
    ),
}  # fmt: skip
"""What it claims → who reads it, and the file."""


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_file_that_claims_too_much_takes_little_memory(
    bomb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binary_formats, "LARGEST", 1 << 24)
    what, make = BOMBS[bomb]
    content = make()
    answer(what, b"", tmp_path)  # what is imported at first use takes memory, too
    with peak_memory(torch.device("cpu")) as peak:
        said = answer(what, content, tmp_path)
        assert (peak() or 0) < 100  # MiB
    assert said or what == "checkpoint"  # which starts anew instead


def test_a_picture_that_is_a_device_is_refused(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.png").write_bytes(picture())
    (tmp_path / "train/a/2.png").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"2\.png in .* is no file of up to"):
        catalog.load(str(tmp_path))


LONG = ["advmask(" + "(" * 900, "cutout(length=" + "1/" * 900 + "1)", "has(p=" + "-" * 900 + "1)"]
ODD = [
    "cutout(length=10**9)",
    "cutout(length=1e400)",
    "has(share=Ramp(a='b'))",
    "f(\0)",
    "f(x=[*1])",
]
ODD += [f"cutout(length={10**400}/1)", "has(share=Ramp(*[1]))", "cutout(length=(lambda: 1)())"]


@pytest.mark.parametrize("text", [*LONG, *ODD])
def test_odd_text_of_a_method_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        registry.build("augmentations", text)
    assert "\n" not in str(caught.value)


@given(
    st.dictionaries(
        st.sampled_from([field.name for field in dataclasses.fields(Recipe)]),
        st.none() | st.text(max_size=9) | st.floats() | st.integers() | st.lists(st.integers()),
        max_size=4,
    )
)
def test_a_recipe_of_odd_values_is_refused_in_one_line(job: dict[str, Any]) -> None:
    with contextlib.suppress(ValueError):
        assert Recipe.from_json(job).key
