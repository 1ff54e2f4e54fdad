"""Data sets by name or by path, as bytes in memory, with where they were found."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from bench import registry
from bench.data import binary_formats, embedded, image_folder
from bench.data.splits import Split, cut, part
from bench.errors import Missing

__all__ = ["Dataset", "Missing", "Split", "cut", "load", "locate", "names", "part"]

Parts = tuple[tuple[str, ...], Split, Split]  # classes, training part, test part

SYSTEM = Path("/usr/share/datasets")  # Debian's place
FORMAT = 1  # of the decoded copies; another number makes them anew


@dataclass(frozen=True, eq=False)
class Dataset:
    """Pictures to train with and to test with.

    ``mean`` and ``std`` are over all pixels of the training part, per channel, in [0, 1]. ``flip``
    tells whether a mirrored picture keeps its class, ``digest`` names the pixels and labels, and
    ``source`` says where they were found.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    mean: Float[Tensor, " c"]
    std: Float[Tensor, " c"]
    flip: bool
    digest: str
    source: str

    @property
    def pin(self) -> str:
        """What a recipe adds to the name: the digest of a folder, whose name alone says little."""
        return "" if registry.parse(self.name)[0] in names() else self.digest


@dataclass(frozen=True)
class Published:
    """A data set that lies in files: what it is, under which names, and who reads them."""

    about: str
    places: tuple[str, ...]
    read: Callable[[Path, int | None], Parts]


EMBEDDED: dict[str, tuple[str, Callable[[], Parts]]] = {
    "digits": ("1,797 scans of digits, 8x8, grey; inside scikit-learn", embedded.digits),
    "photos": ("patches of ten photographs, 32x32, colour; no download", embedded.photos),
}
PUBLISHED = {
    "fashion-mnist": Published(
        "70,000 pictures of clothes, 28x28, grey",
        ("fashion-mnist", "FashionMNIST/raw"),
        lambda path, _: binary_formats.fashion_mnist(path),
    ),
    "cifar10": Published(
        "60,000 pictures of ten classes, 32x32, colour",
        (
            *("cifar-10-batches-py", "cifar-10-batches-bin"),
            *("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz"),
        ),
        lambda path, _: binary_formats.cifar10(path),
    ),
    "cifar100": Published(
        "60,000 pictures of a hundred classes, 32x32, colour",
        (
            *("cifar-100-python", "cifar-100-binary"),
            *("cifar-100-python.tar.gz", "cifar-100-binary.tar.gz"),
        ),
        lambda path, _: binary_formats.cifar100(path),
    ),
    "tiny-imagenet": Published(
        "110,000 pictures of two hundred classes, 64x64, colour",
        ("tiny-imagenet-200", "tiny-imagenet-200.zip"),
        image_folder.read,
    ),
    "flowers102": Published(
        "7,169 flowers of 102 classes, official training and test part, scaled to 64x64",
        ("flowers-102",),
        image_folder.flowers102,
    ),
    "cifar10-jpeg": Published(
        "CIFAR-10 re-encoded as JPEG: not the official pixels",
        ("cifar10-jpeg", "cifar10-jpeg.zip"),
        image_folder.read,
    ),
}
UNFLIPPED = ("digits",)
PART = re.compile(r"(?P<whole>.+?)\((?=(train|test)\b)[^()]*\)")
"""A data set and how many pictures of it; folders may have brackets in their names."""


def names() -> dict[str, str]:
    """Every data set that has a name, and what it is; a path to pictures works as well."""
    return {name: about for name, (about, _) in EMBEDDED.items()} | {
        name: published.about for name, published in PUBLISHED.items()
    }


def load(
    name: str, *, root: Path | None = None, download: bool = False, side: int | None = None
) -> Dataset:
    """Load a data set by its name, or from a folder or zip of pictures.

    Named ones are looked for in ``root``, ``$BENCH_DATA``, the cache folder of the user and
    /usr/share/datasets; digits and photos need no files. ``side`` scales pictures that come as
    files; without it they keep their size where all are equal squares, and become 64x64 otherwise.
    ``download`` fetches what is missing from its publisher, checked by md5; nothing else ever uses
    the network. What was read is kept, decoded, in the cache folder for the next time.

    ``"cifar10(train=2000, test=4000)"`` is a part of a data set, as `part` takes it: a data set of
    its own, with its own statistics and digest.

    Raises `Missing` when files are not there, ValueError when they cannot be read or the name is
    not known.
    """
    if match := PART.fullmatch(name):
        whole = load(match["whole"], root=root, download=download, side=side)
        return _part(whole, registry.parse(name.removeprefix(match["whole"]))[1])
    if name in EMBEDDED:
        return _dataset(name, EMBEDDED[name][1](), "embedded")
    path = locate(name, root=root, download=download)
    copy = _copy(name, path, side)
    if copy is not None and copy.is_file():
        # a copy that cannot be read is made anew
        with suppress(Exception):
            return _kept(_title(name, path), copy, str(path))
    reader = PUBLISHED[name].read if name in PUBLISHED else image_folder.read
    data = _dataset(_title(name, path), reader(path, side), str(path))
    if copy is not None:
        # the copy only saves time: without room or permission for it, work goes on
        with suppress(OSError):
            _keep(copy, data)
    return data


def _part(whole: Dataset, counts: dict[str, object]) -> Dataset:
    """As many training and test pictures of a data set as ``counts`` says, all where it doesn't."""
    if unknown := set(counts) - {"train", "test"}:
        raise ValueError(f"{whole.name} has no part {min(unknown)!r}; it has: test, train")
    cuts = {"train": whole.train, "test": whole.test}
    for name, count in counts.items():
        if type(count) is not int or not 0 < count <= len(cuts[name]):
            raise ValueError(
                f"{name} is {count} of {whole.name}: take from 1 to {len(cuts[name])} pictures"
            )
        chosen = part(cuts[name], count)
        cuts[name] = Split(chosen.images, chosen.labels)
    listed = ", ".join(f"{name}={counts[name]}" for name in cuts if name in counts)
    parts = whole.classes, cuts["train"], cuts["test"]
    found = _dataset(f"{whole.name}({listed})", parts, whole.source)
    return dataclasses.replace(found, flip=whole.flip)


def _title(name: str, path: Path) -> str:
    """What records call a data set: its name, or that of its folder or archive without the path."""
    if name in PUBLISHED:
        return name
    stem = path.resolve().stem if path.is_file() else path.resolve().name
    return f"{stem}-folder" if stem in names() else stem


def locate(name: str, *, root: Path | None = None, download: bool = False) -> Path:
    """Find the folder or archive of a data set that lies in files; errors as in `load`."""
    if name not in PUBLISHED:
        path = Path(name).expanduser()
        if path.is_dir() or path.is_file():
            return path.resolve()
        if "/" in name or path.suffix:
            raise Missing(f"{name} is not there: give a folder or zip with a folder per class")
        near = difflib.get_close_matches(name, names(), 1)
        raise ValueError(
            f"no data set is called {name!r}: "
            + (f"did you mean {near[0]}?" if near else f"there are {', '.join(names())} and paths")
        )
    folders = list(_folders(root))
    for folder in folders:
        for place in PUBLISHED[name].places:
            if (folder / place).exists():
                return folder / place
    if download:
        _download(name, folders[0])
        return locate(name, root=folders[0])
    wanted = " or ".join(PUBLISHED[name].places)
    raise Missing(f"{name} is not there: place {wanted} in {folders[0]}, or ask for a download")


def _folders(root: Path | None) -> Iterator[Path]:
    """Where named data sets are looked for, first things first."""
    if root is not None:
        yield root
    if given := os.environ.get("BENCH_DATA"):
        yield Path(given)
    yield _cache() / "data"
    yield SYSTEM


def _cache() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("bench")


def _download(name: str, folder: Path) -> None:
    """Fetch a data set with torchvision, which compares the md5 before it unpacks."""
    from torchvision import datasets
    from torchvision.datasets.utils import download_url

    fetch: dict[str, Callable[[], object]] = {
        "fashion-mnist": lambda: datasets.FashionMNIST(str(folder), download=True),
        "cifar10": lambda: datasets.CIFAR10(str(folder), download=True),
        "cifar100": lambda: datasets.CIFAR100(str(folder), download=True),
        "flowers102": lambda: datasets.Flowers102(str(folder), download=True),
        "tiny-imagenet": lambda: download_url(
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            str(folder),
            md5="90528d7ca1a48142e341f4ef8d21d0de",
        ),
    }
    if name not in fetch:
        raise Missing(f"{name} has no publisher to download from: place it in {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fetch[name]()
    except (RuntimeError, OSError) as error:
        raise Missing(f"could not download {name} to {folder}: {error}") from error


def _dataset(name: str, parts: Parts, source: str) -> Dataset:
    """Add the exact statistics of the training part and the digest of everything.

    Raises ValueError for pictures and labels that do not belong together, whatever file they are
    from.
    """
    classes, train, test = parts
    for split in (train, test):
        n = len(split.labels)
        if not n or n != len(split.images):
            raise ValueError(f"{source}: {n} labels for {len(split.images)} pictures")
        if int(split.labels.min()) < 0 or int(split.labels.max()) >= len(classes):
            raise ValueError(f"{source}: some labels are not among the {len(classes)} classes")
    if train.images.shape[1:] != test.images.shape[1:] or not train.images.numel():
        raise ValueError(f"{source}: training and test pictures differ in size, or have none")
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([c.flatten().bincount(minlength=256) for c in train.images.unbind(1)])
    weights = counts.double() / counts.sum(1, keepdim=True)
    mean = weights @ values
    std = (weights * (values - mean[:, None]) ** 2).sum(1).sqrt()
    digest = hashlib.sha256()
    for tensor in (train.images, train.labels, test.images, test.labels):
        digest.update(json.dumps(list(tensor.shape)).encode())
        digest.update(tensor.numpy().data)
    return Dataset(
        name=name,
        classes=classes,
        train=train,
        test=test,
        mean=mean.float(),
        std=std.float(),
        flip=name not in UNFLIPPED,
        digest=digest.hexdigest()[:16],
        source=source,
    )


def _copy(name: str, path: Path, side: int | None) -> Path | None:
    """Where the decoded copy of these very files lies: named after path, size and time."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    try:
        state = [(str(file.relative_to(path)), file.stat()) for file in files]
    except OSError:
        return None
    listed = [[file, found.st_size, found.st_mtime_ns] for file, found in state]
    key = [
        hashlib.sha256(json.dumps(part).encode()).hexdigest()[:12]
        for part in ([FORMAT, str(path), side], listed)
    ]
    return _cache() / "decoded" / f"{Path(name).stem}-{'-'.join(key)}.safetensors"


def _keep(copy: Path, data: Dataset) -> None:
    from safetensors.torch import save

    tensors = {
        "train.images": data.train.images,
        "train.labels": data.train.labels,
        "test.images": data.test.images,
        "test.labels": data.test.labels,
        "mean": data.mean,
        "std": data.std,
    }
    header = {"classes": json.dumps(data.classes), "digest": data.digest}
    copy.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=copy.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(save(tensors, metadata=header))
        # copies of an earlier state of the same files are of no use any more
        for old in copy.parent.glob(f"{copy.stem.rpartition('-')[0]}-*.safetensors"):
            old.unlink()
        os.replace(name, copy)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _kept(name: str, copy: Path, source: str) -> Dataset:
    from safetensors import safe_open

    with safe_open(copy, "pt") as file:
        header = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    return Dataset(
        name=name,
        classes=tuple(json.loads(header["classes"])),
        train=Split(tensors["train.images"], tensors["train.labels"]),
        test=Split(tensors["test.images"], tensors["test.labels"]),
        mean=tensors["mean"],
        std=tensors["std"],
        flip=name not in UNFLIPPED,
        digest=header["digest"],
        source=source,
    )
