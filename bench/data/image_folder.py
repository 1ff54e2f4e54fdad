"""Images in folders and zip archives, read in place and decoded in threads."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from bench.data.seeds import generator
from bench.data.splits import Parts, Split, cut
from bench.errors import Missing, reason
from bench.files import zips

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "PPM", "TIFF")  # none that runs a program
SIDE = 64  # pixels; what images of different sizes are brought to
LARGEST_FILE, LARGEST_WHOLE = 1 << 26, 1 << 34  # bytes: 64 MiB and 16 GiB
LARGEST_MAT = 1 << 16  # bytes; the larger one of Flowers has 15,000, and zeros pack 1 to 1,000


class Files:
    """The files of a folder or of a zip archive by their relative names; nothing is unpacked.

    Raises ValueError for an archive that is damaged, encrypted or larger than 16 GiB when unpacked,
    and for entries that are links, larger than 64 MiB or lead out of the archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.archive: zipfile.ZipFile | None = None
        if path.is_dir():
            walk = list(os.walk(path))
            names = [Path(top, name) for top, _, files in walk for name in files]
            folders = [Path(top, name) for top, inner, _ in walk for name in inner]
            self.names = [name.relative_to(path).as_posix() for name in names]
            self.folders = {name.relative_to(path).as_posix() for name in folders}
        else:
            self._open(path)
        self.prefix = ""
        self._enter()

    def _open(self, path: Path) -> None:
        self.archive = zips.open_zip(path, LARGEST_FILE, LARGEST_WHOLE)
        entries = self.archive.infolist()
        self.names = [entry.filename for entry in entries if not entry.is_dir()]
        self.folders = {entry.filename.rstrip("/") for entry in entries if entry.is_dir()}
        for name in self.names:
            parent = name.rpartition("/")[0]
            while parent and parent not in self.folders:
                self.folders.add(parent)
                parent = parent.rpartition("/")[0]

    def _enter(self) -> None:
        """Leave hidden files out, and step into a single folder that holds everything."""
        self.names = sorted(name for name in self.names if not _hidden(name))
        self.folders = {name for name in self.folders if not _hidden(name)}
        while True:
            tops = {name.partition("/")[0] for name in (*self.names, *self.folders)}
            below = f"{next(iter(tops))}/" if len(tops) == 1 else ""
            inner = {name.removeprefix(below) for name in self.folders if name + "/" != below}
            if not below or not inner or below in ("train/", "test/", "val/"):
                return
            self.prefix += below
            self.names = [name.removeprefix(below) for name in self.names]
            self.folders = inner

    def read(self, name: str) -> bytes:
        """The contents of one file; safe to call from several threads.

        Raises ValueError for one that is damaged, larger than 64 MiB or no plain file.
        """
        if self.archive is not None:
            return zips.read(self.archive, self.prefix + name)
        path = self.path / (self.prefix + name)
        about = path.stat()
        # a link may lead to a device or a pipe, which have no end
        if not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST_FILE:
            raise ValueError(f"{name} in {self.path} is no file of up to {LARGEST_FILE} bytes")
        return path.read_bytes()

    def text(self, name: str) -> str:
        """The contents of one text file; raises ValueError for one that is none."""
        try:
            return self.read(name).decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{name} in {self.path} is no text: {reason(error)}") from error

    def decode(self, names: Sequence[str], side: int | None) -> UInt8[Tensor, "n 3 h w"]:
        """Decode images to RGB; ``side`` None keeps their size if all are squares of one size.

        Otherwise the shorter side is scaled to ``side`` (64 for None) and the centre cut out.
        Raises ValueError naming an image that cannot be read.
        """
        length = side or _size(self, names[0])
        if len(names) * 3 * length**2 > min(LARGEST_WHOLE, memory() // 2):
            raise ValueError(f"{len(names)} images of side {length} need too much memory")
        pixels = np.empty((len(names), length, length, 3), np.uint8)

        def fill(start: int) -> bool:
            for place, name in enumerate(names[start : start + 256], start):
                image = self.image(name)
                if side is not None:
                    image = square(image, side)
                elif image.size != (length, length):
                    return False
                pixels[place] = np.asarray(image)
            return True

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for same in pool.map(fill, range(0, len(names), 256)):
                if not same:
                    pool.shutdown(cancel_futures=True)
                    return self.decode(names, SIDE)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    def image(self, name: str) -> Image.Image:
        """One image as RGB; grey becomes RGB, transparency is dropped."""
        try:
            with Image.open(io.BytesIO(self.read(name)), formats=FORMATS) as file:
                limit = Image.MAX_IMAGE_PIXELS or 0
                if file.width * file.height > limit:
                    raise ValueError(f"it has {file.width}x{file.height} pixels, above {limit}")
                if file.mode[0] in "IF":
                    raise ValueError("it has more than 8 bits per channel: save it with 8")
                return file.convert("RGB")
        except UnidentifiedImageError as error:  # its own text names no file
            raise ValueError(
                f"{name} in {self.path} cannot be read: it is no image of {', '.join(FORMATS)}"
            ) from error
        except Exception as error:
            raise ValueError(f"{name} in {self.path} cannot be read: {reason(error)}") from error


def memory() -> int:
    """Bytes of memory that the machine has, 16 GiB where it does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 1 << 34


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def _size(files: Files, name: str) -> int:
    """The side of a square image, else the side that images of many sizes are brought to."""
    width, height = files.image(name).size
    return width if width == height else SIDE


def square(image: Image.Image, side: int) -> Image.Image:
    """Scale the shorter side to ``side`` pixels (antialiased) and cut out the centre."""
    if image.size == (side, side):
        return image
    short = min(image.size)
    left, top = (image.width - short) / 2, (image.height - short) / 2
    box = (left, top, left + short, top + short)
    return image.resize((side, side), Image.Resampling.BILINEAR, box)


def scaled(parts: Parts, side: int) -> Parts:
    """Images in memory as `square` makes them of files."""

    def each(split: Split) -> Split:
        n, c, h, w = split.images.shape
        if (h, w) == (side, side):
            return split
        pixels = np.empty((n, c, side, side), np.uint8)
        for place, image in enumerate(split.images.numpy()):
            mode = image[0] if c == 1 else image.transpose(1, 2, 0)
            array = np.asarray(square(Image.fromarray(mode), side))
            pixels[place] = array[None] if c == 1 else array.transpose(2, 0, 1)
        return Split(torch.from_numpy(pixels), split.labels)

    return Parts(parts.classes, each(parts.train), each(parts.test))


def read(path: Path, side: int | None) -> Parts:
    """Read a folder or zip of images: the layout of Tiny-ImageNet, or one folder per class.

    The class folders lie in ``train`` and ``test`` (or ``val``), or at the top: then a fixed fifth
    of each class becomes the test part. Raises ValueError when a part or a class has no images.
    """
    files = Files(path)
    if "wnids.txt" in files.names:
        return _tiny_imagenet(files, side)
    tops = {name.partition("/")[0] for name in files.folders}
    if "train" not in tops:
        if tops & {"test", "val"}:
            raise ValueError(f"{path} has a test part but no train/ with a folder per class")
        found = _classes(files, "")
        train, test = cut(_split(files, found, side), 0.2, generator(0, "test cut"))
        if not len(test):
            raise ValueError(f"{path}: the classes are too small to set a fifth aside for testing")
        return Parts(tuple(found), train.alone(), test.alone())
    part = "test" if "test" in tops else "val"
    if part not in tops:
        raise ValueError(f"{path} has train/ but neither test/ nor val/ beside it")
    found, held = _classes(files, "train/"), _classes(files, f"{part}/")
    if lone := sorted(found.keys() ^ held.keys()):
        raise ValueError(f"{path}: class {lone[0]} is in one of train/ and {part}/ only")
    # both parts have one size, also where each of them is square for itself
    both = _split(files, {c: found[c] + held[c] for c in found}, side)
    ahead = torch.cat([torch.arange(len(found[c]) + len(held[c])) < len(found[c]) for c in found])
    train, test = both.take(ahead.nonzero()[:, 0]), both.take((~ahead).nonzero()[:, 0])
    return Parts(tuple(found), train.alone(), test.alone())


def _classes(files: Files, below: str) -> dict[str, list[str]]:
    """The images of each class folder right below a folder."""
    found: dict[str, list[str]] = {
        name.removeprefix(below): []
        for name in sorted(files.folders)
        if name.startswith(below) and "/" not in name.removeprefix(below)
    }
    for name in files.names:
        top, _, rest = name.removeprefix(below).partition("/")
        if name.startswith(below) and rest and name.lower().endswith(SUFFIXES):
            found[top].append(name)
    if len(found) < 2:
        raise ValueError(
            f"{files.path}: {below or 'it'} holds {len(found)} class folders, at least 2 are "
            "needed: train/CLASS/*.jpg and test/CLASS/*.jpg, or CLASS/*.jpg"
        )
    for label, names in found.items():
        if not names:
            raise ValueError(f"{files.path}: class folder {below}{label} has no images")
    return found


def _split(files: Files, classes: dict[str, list[str]], side: int | None) -> Split:
    names = [name for found in classes.values() for name in found]
    counts = torch.tensor([len(found) for found in classes.values()])
    return Split(files.decode(names, side), torch.arange(len(counts)).repeat_interleave(counts))


def _tiny_imagenet(files: Files, side: int | None) -> Parts:
    """Train from the class folders; the validation part, whose labels are public, is the test."""
    train: dict[str, list[str]] = {label: [] for label in files.text("wnids.txt").split()}
    train = dict(sorted(train.items()))
    test: dict[str, list[str]] = {label: [] for label in train}
    for name in files.names:
        if name.startswith("train/") and name.lower().endswith(SUFFIXES):
            label = name.split("/")[1]
            if label not in train:
                raise ValueError(f"{files.path}: {label} is not in wnids.txt")
            train[label].append(name)
    annotations = "val/val_annotations.txt"
    known = set(files.names)
    if annotations not in known:
        raise Missing(f"{files.path} is incomplete: it lacks {annotations}")
    for line in files.text(annotations).splitlines():
        name, label, *_ = *line.split("\t"), "no class"
        if f"val/images/{name}" not in known or label not in test:
            raise Missing(f"{files.path} is incomplete: it lacks val/images/{name} of {label}")
        test[label].append(f"val/images/{name}")
    for label in train:
        if not train[label] or not test[label]:
            raise Missing(f"{files.path} is incomplete: it lacks images of {label}")
    side = side or SIDE
    return Parts(tuple(train), _split(files, train, side), _split(files, test, side))


def flowers102(path: Path, side: int | None) -> Parts:
    """Read Oxford's 102 flowers with the official split: 1,020 to train, 6,149 to test.

    Needs a folder with ``jpg/``, ``imagelabels.mat`` and ``setid.mat``. The official validation
    part is left out. The published labels carry no names, so the classes are numbers.
    """
    files = Files(path)
    for name in ("imagelabels.mat", "setid.mat"):
        if name not in files.names:
            raise Missing(f"{path} is incomplete: it lacks {name}")
    (labels,) = _matlab(files, "imagelabels.mat", "labels")
    parts = _matlab(files, "setid.mat", "trnid", "tstid")
    if any(numbers.min() < 1 or numbers.max() > len(labels) for numbers in parts):
        raise ValueError(f"{path}: setid.mat names images that imagelabels.mat does not have")

    def split(numbers: np.ndarray) -> Split:
        names = [f"jpg/image_{number:05d}.jpg" for number in numbers]
        if lacking := sorted(set(names) - set(files.names)):
            raise Missing(f"{path} is incomplete: it lacks {lacking[0]}")
        return Split(files.decode(names, side or SIDE), torch.from_numpy(labels[numbers - 1] - 1))

    classes = tuple(str(number + 1) for number in range(len(set(labels.tolist()))))
    train, test = map(split, parts)
    return Parts(classes, train, test)


def _matlab(files: Files, name: str, *variables: str) -> list[np.ndarray]:
    """Rows of integers from a Matlab file; raises ValueError for anything else."""
    from scipy.io import loadmat

    content = files.read(name)
    if len(content) > LARGEST_MAT:
        raise ValueError(f"{name} in {files.path} has {len(content)} bytes: too large")
    try:
        found = loadmat(io.BytesIO(content), variable_names=variables)  # type: ignore[arg-type]
        rows = [found[variable][0].astype(np.int64, casting="same_kind") for variable in variables]
    except Exception as error:  # a damaged file raises what its bytes happen to mean
        raise ValueError(f"{name} in {files.path} cannot be read: {reason(error)}") from error
    if any(row.ndim != 1 or not row.size for row in rows):
        raise ValueError(f"{name} in {files.path} holds no rows of numbers")
    return rows
