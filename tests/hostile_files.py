"""Readers of files from outside, a valid file for each, and what reading one leads to."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import shutil
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as pack
from scipy.io import savemat

from bench.data import catalog
from bench.data.dataset import Dataset
from bench.data.splits import Split
from bench.errors import Missing
from bench.files import checksums, json_text, tensor_files
from bench.models import networks, weight_files
from bench.points.import_export import from_numpy, to_numpy
from bench.points.store import Points
from bench.records.record import Record
from bench.records.store import Store
from bench.records.validation import PLAIN
from bench.reporting import cost_table
from bench.robustness import batches, occlusion
from bench.training import checkpoints
from bench.training.recipes import Recipe

ABOUT = {"trial": {"attack": "jsma"}, "seed": 0, "goal": 0}
IDS = torch.arange(3)


@cache
def tiny() -> Dataset:
    """Eight images of four by five pixels."""
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
        weight_files.take(model, weight_files.read(path), path)
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


def read_images(path: Path) -> object:
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
    return tensor_files.pack(
        tensors, {"about": json.dumps(found.about | {"attack": "jsma", "seconds": 1.5})}
    )


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


def image_file(kind: str = "PNG", side: int = 6) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(256, size=(side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def zip_file(kind: str = "PNG", **more: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in ("train", "test"):
            for label in ("a", "b"):
                archive.writestr(f"{part}/{label}/1.{kind.lower()}", image_file(kind))
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
        files |= {f"val/images/{number}.JPEG": image_file("JPEG", 64) for number in range(2)}
        files |= {f"train/{each}/images/0.JPEG": image_file("JPEG", 64) for each in "ab"}
        return {f"tiny-imagenet-200/{each}": content for each, content in files.items()}
    files = {f"jpg/image_{k:05d}.jpg": image_file("JPEG") for k in (1, 2)}
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
    "zip of PNG": ("a.zip", read_images, zip_file),
    "zip of JPEG": ("a.zip", read_images, lambda: zip_file("JPEG")),
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
