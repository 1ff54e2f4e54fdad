"""Datasets by name or path: where their files are found, and how they are loaded."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.data import (
    cache,
    dataset,
    file_images,
    image_files,
    image_folder,
    imagenet,
    sample_collections,
)
from bench.data.dataset import Dataset
from bench.data.entries import ENTRIES, FOLDER, Entry
from bench.data.file_images import FileImages
from bench.data.splits import Parts, decoded_by, in_memory, part
from bench.errors import Missing, suggest
from bench.registry import notation

SYSTEM = Path("/usr/share/datasets")  # Debian's place
PART = re.compile(r"(?P<whole>.+?)(?P<options>\((?=(train|test|side)\b)[^()]*\))")
"""A dataset, how many images of it and of which side; folders may have brackets in their names."""
OPTIONS = ("train", "test", "side")  # in the order in which names have them
OPTION = re.compile(r".+\(\s*(\w+)\s*=[^()]*\)")
"""A name with options, of which the first is none of `OPTIONS` where `PART` does not match."""
LARGEST_SIDE = 4096  # pixels


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


def known_side(name: str) -> int | None:
    """Side of a dataset's images in pixels; None for a folder whose name does not say it.

    >>> known_side("cifar10(train=2000)"), known_side("my/folder"), known_side("mine(side=64)")
    (32, None, 64)
    """
    whole, options = divided(name)
    return facts(name).side if whole in ENTRIES or "side" in options else None


def divided(name: str) -> tuple[str, dict[str, object]]:
    """The whole that a name means, and its options: how many images of each part, and their side.

    >>> divided("cifar10(train=2000)"), divided("mine (2)"), divided("flowers102(side=224)")
    (('cifar10', {'train': 2000}), ('mine (2)', {}), ('flowers102', {'side': 224}))
    """
    match = PART.fullmatch(name)
    if match is None:
        return name, {}
    text = f"part{match['options']}"  # the whole may have spaces and brackets
    try:
        return match["whole"], notation.parse(text)[1]
    except ValueError as error:
        raise ValueError(str(error).replace(text, name)) from None


def sized(name: str, side: int | None) -> str:
    """The name of a dataset whose images are scaled to a side in pixels.

    The side that a dataset of the catalog has anyway is left out, so that it has one name only.

    Args:
        name: As `load` takes it.
        side: The height and width in pixels; None for what the name says.

    Raises:
        ValueError: The name says another side, or the side is not valid.

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
    name: str,
    *,
    root: Path | None = None,
    download: bool = False,
    side: int | None = None,
    workers: int | None = None,
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
        workers: Threads that decode images which are too large for memory and stay in their files
            (`FileImages`); None: one per core.

    Raises:
        Missing: The files are not there.
        ValueError: They cannot be read, or the name is not known.
    """
    whole, counts = divided(sized(name, side))
    given = counts.pop("side", None)
    side = None if given is None else _checked_side(whole, given)
    if sample_collections.is_collection(whole):
        return _part(_collection(whole, side, download), counts)
    if counts:
        found = load(whole, root=root, download=download, side=side, workers=workers)
        return _part(found, counts)
    entry = ENTRIES.get(whole, FOLDER)
    named = whole in ENTRIES
    options = {} if side is None else {"side": side}
    if entry.embedded is not None:
        parts, title = entry.embedded(), _named(whole, options)
        if side is not None:
            parts = image_files.scaled(parts, side)
        return dataset.make(title, parts, source="embedded", flip=entry.flip, named=named)
    path = locate(whole, root=root, download=download)
    if whole not in ENTRIES and (known := _published(path)) is not None:
        whole, entry, named = known, ENTRIES[known], True
    title, source = _named(_title(whole, path), options), str(path)
    copy = cache.place(whole, path, side)
    if copy is not None:
        kept = cache.load(copy, title, source=source, flip=entry.flip, named=named)
        if kept is not None:
            return kept
    parts = _read(entry, path, side, workers)
    in_files = isinstance(parts.train.images, FileImages)
    measured = cache.measured(copy) if in_files and copy is not None else None
    data = dataset.make(title, parts, source=source, flip=entry.flip, named=named, known=measured)
    if copy is not None and measured is None:
        cache.save(data, copy)
    return data


def _read(entry: Entry, path: Path, side: int | None, workers: int | None) -> Parts:
    """What is at a place, scaled, and decoded by so many threads."""
    parts = entry.read(path, side)
    if side is not None:
        parts = image_files.scaled(parts, side)
    if workers is not None:
        parts = Parts(parts.classes, *(decoded_by(workers, each) for each in parts[1:]))
    return parts


def _collection(name: str, side: int | None, download: bool) -> Dataset:
    """A dataset of another library, whole."""
    parts = sample_collections.read(name, side, download)
    title = _named(sample_collections.title(name), {} if side is None else {"side": side})
    return dataset.make(title, parts, source=name)


def _published(path: Path) -> str | None:
    """The name of the dataset whose own files a path leads to, in a layout that only it has."""
    for name, entry in ENTRIES.items():
        own = entry.read not in (image_folder.read, imagenet.read)
        if own and any(path.match(place) for place in entry.places):
            return name
    return None


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
    if sum(len(each) * each.images.shape[1:].numel() for each in cuts.values()) <= (
        file_images.LARGEST_IN_MEMORY
    ):
        cuts = {name: in_memory(each) for name, each in cuts.items()}
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
    if path.exists():
        raise ValueError(f"{name} is neither a folder nor a zip: give a folder or zip of images")
    if unknown := OPTION.fullmatch(name):
        raise ValueError(
            f"{name} has an unknown option {unknown[1]!r}: {suggest(unknown[1], OPTIONS)}"
        )
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
