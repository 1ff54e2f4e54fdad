"""The named datasets: every fact of each, where its files are found, and how it is loaded.

A new dataset is one entry of `ENTRIES`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import registry
from bench.data import binary_formats, cache, dataset, embedded, image_folder
from bench.data.dataset import Dataset
from bench.data.splits import Parts, part
from bench.errors import Missing

SYSTEM = Path("/usr/share/datasets")  # Debian's place
PART = re.compile(r"(?P<whole>.+?)(?P<options>\((?=(train|test|side)\b)[^()]*\))")
"""A dataset, how many images of it and of which side; folders may have brackets in their names."""
OPTIONS = ("train", "test", "side")  # in the order in which names have them
LARGEST_SIDE = 4096  # pixels


def _torchvision(name: str) -> Callable[[Path], object]:
    """A download by torchvision, which compares the md5 before it unpacks."""

    def fetch(folder: Path) -> object:
        from torchvision import datasets

        return getattr(datasets, name)(str(folder), download=True)

    return fetch


def _tiny_imagenet(folder: Path) -> object:
    from torchvision.datasets.utils import download_url

    return download_url(
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        str(folder),
        md5="90528d7ca1a48142e341f4ef8d21d0de",
    )


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The facts of a dataset.

    Attributes:
        about: One line for lists.
        train: The number of training images.
        test: The number of test images.
        side: The height and width of an image, in pixels.
        channels: 1 for grey, 3 for RGB.
        classes: The number of classes.
        flip: Whether a mirrored image keeps its class.
        embedded: Makes the dataset, where it comes with a library and needs no files.
        places: The names of its folder or archive, in the order of preference.
        read: Reads what is at one of those places; the second argument is the side in pixels to
            which images are scaled, None for the usual one.
        download: Fetches the dataset into a folder; None without a publisher.
        training: The fields of a recipe that differ from section 4.1 of the paper.
        victim: The network that is attacked unless another is asked for.
        victim_epochs: How long it is trained.
        eps: The largest change of a value, in [0, 1], of an attack that finds adversarial points
            and does not name its own.
        points: The attack that finds the adversarial points of the dataset. AdvMask's published
            constants are made for CIFAR; where they break too few images or leave masks below
            AdvMask's lower bound, the entry says what replaces them.
    """

    about: str
    train: int
    test: int
    side: int
    channels: int = 3
    classes: int = 10
    flip: bool = True
    embedded: Callable[[], Parts] | None = None
    places: tuple[str, ...] = ()
    read: Callable[[Path, int | None], Parts] = image_folder.read
    download: Callable[[Path], object] | None = None
    training: Mapping[str, int | float] = field(default_factory=dict)
    victim: str = "resnet20"
    victim_epochs: int = 30
    eps: float = 8 / 255
    points: str = "advmask.published"


ENTRIES: dict[str, Entry] = {
    "digits": Entry(
        about="1,797 scans of digits, 8x8, grey; inside scikit-learn",
        train=1438,
        test=359,
        side=8,
        channels=1,
        flip=False,
        embedded=embedded.digits,
        # seconds per epoch for a ResNet-18 on two cores; the accuracy has settled by then
        training={"epochs": 12, "batch_size": 64, "learning_rate": 0.05},
        victim="resnet8",
        victim_epochs=20,
        # 8/255 breaks 3 % of these high-contrast images only
        eps=0.5,
        # at 4/255 no image breaks; with gamma 10 a fifth of the masks stay below AdvMask's bound
        points="advmask.published(eps=0.3, step_size=0.15, sparsity_slope=1.0)",
    ),
    "photos": Entry(
        about="patches of ten photographs, 32x32, colour; no download",
        train=2000,
        test=500,
        side=32,
        embedded=embedded.photos,
        training={"epochs": 30, "batch_size": 64, "learning_rate": 0.05},
        # at 8/255 half of these smooth images break
        points="advmask.published(eps=32/255, step_size=16/255)",
    ),
    "fashion-mnist": Entry(
        about="70,000 images of clothes, 28x28, grey",
        train=60_000,
        test=10_000,
        side=28,
        channels=1,
        places=("fashion-mnist", "FashionMNIST/raw"),
        read=lambda path, _: binary_formats.fashion_mnist(path),
        download=_torchvision("FashionMNIST"),
    ),
    "cifar10": Entry(
        about="60,000 images of ten classes, 32x32, colour",
        train=50_000,
        test=10_000,
        side=32,
        places=(
            *("cifar-10-batches-py", "cifar-10-batches-bin"),
            *("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz"),
        ),
        read=lambda path, _: binary_formats.cifar10(path),
        download=_torchvision("CIFAR10"),
    ),
    "cifar100": Entry(
        about="60,000 images of a hundred classes, 32x32, colour",
        train=50_000,
        test=10_000,
        side=32,
        classes=100,
        places=(
            *("cifar-100-python", "cifar-100-binary"),
            *("cifar-100-python.tar.gz", "cifar-100-binary.tar.gz"),
        ),
        read=lambda path, _: binary_formats.cifar100(path),
        download=_torchvision("CIFAR100"),
    ),
    "tiny-imagenet": Entry(
        about="110,000 images of two hundred classes, 64x64, colour",
        train=100_000,
        test=10_000,
        side=64,
        classes=200,
        places=("tiny-imagenet-200", "tiny-imagenet-200.zip"),
        download=_tiny_imagenet,
    ),
    "flowers102": Entry(
        about="7,169 flowers of 102 classes, official training and test part, scaled to 64x64",
        train=1020,
        test=6149,
        side=64,
        classes=102,
        places=("flowers-102",),
        read=image_folder.flowers102,
        download=_torchvision("Flowers102"),
    ),
    "cifar10-jpeg": Entry(
        about="CIFAR-10 re-encoded as JPEG: not the official pixels",
        train=50_000,
        test=10_000,
        side=32,
        places=("cifar10-jpeg", "cifar10-jpeg.zip"),
    ),
}
FOLDER = Entry(about="a folder or zip of images", train=50_000, test=10_000, side=32)
"""What is assumed of a folder of images until it is read: the numbers of CIFAR-10."""


def names() -> dict[str, str]:
    """Every dataset that has a name, and what it is; a path to images works as well."""
    return {name: entry.about for name, entry in ENTRIES.items()}


def facts(name: str) -> Entry:
    """What is known of a dataset before it is loaded.

    Args:
        name: A name of the catalog, a part of one (whose entry has the numbers of the part), or the
            name of or path to a folder, for which `FOLDER` is assumed.

    >>> facts("digits(train=100)").train, facts("cifar100").classes, facts("my/folder").side
    (100, 100, 32)
    """
    whole, options = divided(name)
    entry = ENTRIES.get(whole, FOLDER)
    known: dict[str, Any] = {name: each for name, each in options.items() if isinstance(each, int)}
    return replace(entry, **{name: known[name] for name in known.keys() & set(OPTIONS)})


def divided(name: str) -> tuple[str, dict[str, object]]:
    """The whole that a name means, and its options: how many images of each part, and their side.

    >>> divided("cifar10(train=2000)"), divided("mine (2)"), divided("flowers102(side=224)")
    (('cifar10', {'train': 2000}), ('mine (2)', {}), ('flowers102', {'side': 224}))
    """
    match = PART.fullmatch(name)
    if match is None:
        return name, {}
    return match["whole"], registry.parse(f"part{match['options']}")[1]


def sized(name: str, side: int | None) -> str:
    """The name of a dataset whose images are scaled to a side in pixels.

    The side that a dataset of the catalog has anyway is left out, so that it has one name only.

    Args:
        name: As `load` takes it.
        side: The height and width in pixels; None for what the name says.

    Raises:
        ValueError: The name says another side, or the side is none.

    >>> sized("flowers102(train=100)", 224), sized("tiny-imagenet", 64)
    ('flowers102(train=100, side=224)', 'tiny-imagenet')
    """
    whole, options = divided(name)
    if side is not None and options.setdefault("side", side) != side:
        raise ValueError(f"{name} says another side than {side}: remove one of the two")
    if "side" not in options:
        return name
    side = _checked_side(whole, options["side"])
    if whole in ENTRIES and side == ENTRIES[whole].side:
        del options["side"]
    return _named(whole, options)


def _named(whole: str, options: Mapping[str, object]) -> str:
    """The one spelling of a dataset with options."""
    ordered = [*(each for each in OPTIONS if each in options), *(options.keys() - set(OPTIONS))]
    listed = ", ".join(f"{each}={options[each]}" for each in ordered)
    return f"{whole}({listed})" if listed else whole


def _checked_side(whole: str, side: object) -> int:
    if type(side) is not int or not 1 <= side <= LARGEST_SIDE:
        raise ValueError(f"side is {side} of {whole}: give 1 to {LARGEST_SIDE} pixels")
    return side


def load(
    name: str, *, root: Path | None = None, download: bool = False, side: int | None = None
) -> Dataset:
    """Load a dataset by its name, or from a folder or zip of images.

    Named ones are looked for in ``root``, ``$BENCH_DATA``, the cache folder of the user and
    /usr/share/datasets; digits and photos need no files. What was read is kept, decoded, in the
    cache folder for the next time.

    Args:
        name: A name of the catalog or a path. ``"cifar10(train=2000, test=4000)"`` is a part, as
            `part` takes it: a dataset of its own, with its own statistics and digest. So is
            ``"cifar10(side=64)"``, whose images are scaled.
        root: Where a named dataset is looked for first.
        download: Fetch what is missing from its publisher, checked by md5; nothing else ever uses
            the network.
        side: Scale the images to this height and width in pixels, as ``"flowers102(side=224)"``
            does. Without it images that come as files keep their size where all are equal squares,
            and become 64x64 otherwise.

    Raises:
        Missing: The files are not there.
        ValueError: They cannot be read, or the name is not known.
    """
    whole, counts = divided(sized(name, side))
    given = counts.pop("side", None)
    side = None if given is None else _checked_side(whole, given)
    if counts:
        return _part(load(whole, root=root, download=download, side=side), counts)
    entry = ENTRIES.get(whole, FOLDER)
    named = whole in ENTRIES
    options = {} if side is None else {"side": side}
    if entry.embedded is not None:
        found, title = entry.embedded(), _named(whole, options)
        if side is not None:
            found = image_folder.scaled(found, side)
        return dataset.make(title, found, source="embedded", flip=entry.flip, named=named)
    path = locate(whole, root=root, download=download)
    title, source = _named(_title(whole, path), options), str(path)
    copy = cache.place(whole, path, side)
    if copy is not None:
        kept = cache.load(copy, title, source=source, flip=entry.flip, named=named)
        if kept is not None:
            return kept
    found = entry.read(path, side)
    if side is not None:
        found = image_folder.scaled(found, side)
    data = dataset.make(title, found, source=source, flip=entry.flip, named=named)
    if copy is not None:
        cache.save(data, copy)
    return data


def _part(whole: Dataset, counts: dict[str, object]) -> Dataset:
    """As many training and test images of a dataset as ``counts`` says, all where it doesn't."""
    if unknown := set(counts) - {"train", "test"}:
        raise ValueError(f"{whole.name} has no part {min(unknown)!r}; it has: test, train")
    cuts = {"train": whole.train, "test": whole.test}
    for name, count in counts.items():
        if type(count) is not int or not 0 < count <= len(cuts[name]):
            raise ValueError(
                f"{name} is {count} of {whole.name}: take from 1 to {len(cuts[name])} images"
            )
        cuts[name] = part(cuts[name], count).alone()
    base, options = divided(whole.name)
    return dataset.make(
        _named(base, options | counts),
        Parts(whole.classes, cuts["train"], cuts["test"]),
        source=whole.source,
        flip=whole.flip,
        named=whole.named,
    )


def _title(name: str, path: Path) -> str:
    """What records call a dataset: its name, or that of its folder or archive without the path."""
    if name in ENTRIES:
        return name
    stem = path.resolve().stem if path.is_file() else path.resolve().name
    return f"{stem}-folder" if stem in ENTRIES else stem


def locate(name: str, *, root: Path | None = None, download: bool = False) -> Path:
    """Find the folder or archive of a dataset that consists of files.

    Args:
        name: A name of the catalog that needs files, or a path.
        root: As in `load`.
        download: As in `load`.

    Raises:
        Missing: It is not there.
        ValueError: The name is not known.
    """
    entry = ENTRIES.get(name)
    if entry is None or not entry.places:
        return _given(name)
    folders = list(_folders(root))
    for folder in folders:
        for place in entry.places:
            if (folder / place).exists():
                return folder / place
    if download:
        _download(name, folders[0])
        return locate(name, root=folders[0])
    wanted = " or ".join(entry.places)
    remedy = ", or add --download" if entry.download else ""
    raise Missing(f"{name} is not there: place {wanted} in {folders[0]}{remedy}")


def _given(name: str) -> Path:
    """A path to images that the user gave."""
    path = Path(name).expanduser()
    if path.is_dir() or path.is_file():
        return path.resolve()
    if "/" in name or path.suffix:
        raise Missing(f"{name} is not there: give a folder or zip with a folder per class")
    near = difflib.get_close_matches(name, ENTRIES, 1)
    raise ValueError(
        f"no dataset is called {name!r}: "
        + (f"did you mean {near[0]}?" if near else f"there are {', '.join(ENTRIES)} and paths")
    )


def _folders(root: Path | None) -> Iterator[Path]:
    """Where named datasets are looked for, first things first."""
    if root is not None:
        yield root
    if given := os.environ.get("BENCH_DATA"):
        yield Path(given)
    yield cache.folder() / "data"
    yield SYSTEM


def _download(name: str, folder: Path) -> None:
    fetch = ENTRIES[name].download
    if fetch is None:
        raise Missing(f"{name} has no publisher to download from: place it in {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fetch(folder)
    except (RuntimeError, OSError) as error:
        raise Missing(f"could not download {name} to {folder}: {error}") from error
