"""The image files of a folder or zip archive, read in place and decoded in threads."""

from __future__ import annotations

import functools
import io
import itertools
import os
import stat
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from bench.data import file_images
from bench.data.file_images import FileImages
from bench.data.splits import Parts, Split
from bench.errors import reason
from bench.files import checksums, zips

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "PPM", "TIFF")  # none that runs a program
SIDE = 64  # pixels; what images of different sizes are brought to
LARGE, DENSEST = 1 << 22, 500
"""Pixels that any image may have; beyond, those for each of its bytes. Scans of text have 300."""
LARGEST_FILE, LARGEST_WHOLE = 1 << 26, 1 << 34  # bytes: 64 MiB and 16 GiB


class Files:
    """The files of a folder or of a zip archive by their relative names; nothing is unpacked.

    Raises ValueError for an archive that is damaged, encrypted or larger than 16 GiB when unpacked,
    and for entries that are links, larger than 64 MiB or lead out of the archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: list[str]
        self.folders: set[str]
        self.archive: zipfile.ZipFile | None = None
        if path.is_dir():
            # plain texts: a million paths would need a gigabyte
            start, self.names, self.folders = len(f"{path}/"), [], set()
            for top, inner, files in os.walk(path):
                below = f"{top}/"[start:]
                self.names += [below + name for name in files]
                self.folders |= {below + name for name in inner}
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

        Raises ValueError for one that is damaged, larger than 64 MiB or not a plain file.
        """
        if self.archive is not None:
            return zips.read(self.archive, self.prefix + name)
        path = self.path / (self.prefix + name)
        about = path.stat()
        # a link may lead to a device or a pipe, which have no end
        if not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST_FILE:
            raise ValueError(f"{name} in {self.path} is not a file of up to {LARGEST_FILE} bytes")
        return path.read_bytes()

    def text(self, name: str) -> str:
        """The contents of one text file; raises ValueError for one that is not text."""
        try:
            return self.read(name).decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{name} in {self.path} is not a text: {reason(error)}") from error

    def images(
        self, parts: Sequence[Sequence[str]], side: int | None
    ) -> Sequence[UInt8[Tensor, "_ 3 h w"] | FileImages]:
        """The images of several parts, all of one size, as RGB.

        They are decoded into memory, unless they need more than 4 GiB of it
        (`file_images.LARGEST_IN_MEMORY`); those stay in their files.

        Args:
            parts: The names of the files of each part.
            side: Scale the shorter side to this many pixels and cut the centre out; None keeps the
                size if all are squares of one size, and means 64 otherwise.

        Raises:
            ValueError: An image cannot be read; it is named. Or this machine has too little memory.
        """
        names = [*itertools.chain(*parts)]
        length = side or _size(self, names[0])
        need = len(names) * 3 * length**2
        if need > file_images.LARGEST_IN_MEMORY:
            if side is None and not self._have_size(names, length):
                return self.images(parts, SIDE)
            return self._in_files(names, [len(part) for part in parts], length)
        _fits(len(names), 3, length)
        found = [self.decode(part, side, length) for part in parts]
        if any(each is None for each in found):
            return self.images(parts, SIDE)
        return found  # type: ignore[return-value]

    def decode(
        self, names: Sequence[str], side: int | None, length: int
    ) -> UInt8[Tensor, "n 3 h w"] | None:
        """Decode images into memory; ``side`` is that of `images`, and ``length`` what it comes to.

        None where ``side`` is None and the images are no squares of that length.
        """
        # in the order of the tensor from the start: it is the only copy
        pixels = np.empty((len(names), 3, length, length), np.uint8)

        def fill(start: int) -> bool:
            for place, name in enumerate(names[start : start + 256], start):
                image = self.image(name)
                if side is not None:
                    image = square(image, side)
                elif image.size != (length, length):
                    return False
                pixels[place] = np.asarray(image).transpose(2, 0, 1)
            return True

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for same in pool.map(fill, range(0, len(names), 256)):
                if not same:
                    pool.shutdown(cancel_futures=True)
                    return None
        return torch.from_numpy(pixels)

    def _have_size(self, names: Sequence[str], length: int) -> bool:
        """Whether all images are squares of one length, from their headers."""

        def same(start: int) -> bool:
            some = names[start : start + 256]
            return all(self._opened(name).size == (length, length) for name in some)

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for each in pool.map(same, range(0, len(names), 256)):
                if not each:
                    pool.shutdown(cancel_futures=True)
                    return False
        return True

    def _in_files(self, names: Sequence[str], counts: list[int], side: int) -> list[FileImages]:
        """The images of parts that follow each other, left in their files."""

        def decode(place: int) -> NDArray[np.uint8]:
            return np.asarray(square(self.image(names[place]), side))

        @functools.cache
        def content() -> str:
            return checksums.key([[name, self.size(name)] for name in names] + [side])

        places = torch.arange(len(names)).split(counts)
        workers = file_images.usual_workers()
        return [FileImages(decode, some, side, content, workers) for some in places]

    def size(self, name: str) -> int:
        """The number of bytes of a file, unpacked."""
        if self.archive is not None:
            return self.archive.getinfo(self.prefix + name).file_size
        return os.stat(f"{self.path}/{self.prefix}{name}").st_size

    def _opened(self, name: str) -> Image.Image:
        """An image of which the header has been read and found harmless; errors name it."""
        with self._named(name):
            return self._header(name)

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Turn whatever is wrong with a file into one line that names it."""
        try:
            yield
        except UnidentifiedImageError as error:  # its own text names no file
            raise ValueError(
                f"{name} in {self.path} cannot be read: it is not an image of {', '.join(FORMATS)}"
            ) from error
        except Exception as error:
            raise ValueError(f"{name} in {self.path} cannot be read: {reason(error)}") from error

    def _header(self, name: str) -> Image.Image:
        content = self.read(name)
        file = Image.open(io.BytesIO(content), formats=FORMATS)
        limit = Image.MAX_IMAGE_PIXELS or 0
        if file.width * file.height > limit:
            raise ValueError(f"it has {file.width}x{file.height} pixels, above {limit}")
        if file.width * file.height > max(LARGE, DENSEST * len(content)):
            raise ValueError(
                f"it has {file.width}x{file.height} pixels in {len(content)} bytes, too few for "
                "anything to be seen"
            )
        if file.mode[0] in "IF":
            raise ValueError("it has more than 8 bits per channel: save it with 8")
        return file

    def image(self, name: str) -> Image.Image:
        """One image as RGB, the pixels that torchvision's ``ImageFolder`` gives.

        Grey becomes RGB, transparency is dropped, and an orientation in the EXIF data is ignored.
        """
        with self._named(name), self._header(name) as file:
            return file.convert("RGB")


def _fits(count: int, channels: int, side: int) -> None:
    """Refuse images that take more than half of the memory."""
    need = count * channels * side**2
    if need > memory() // 2:
        raise ValueError(
            f"{count} images of side {side} need {need / 1e9:.1f} GB of memory, more than half of "
            f"the {memory() / 1e9:.1f} GB of this machine: choose a smaller --side"
        )


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
        if (h, w) == (side, side) or isinstance(split.images, FileImages):
            return split
        _fits(n, c, side)
        pixels = np.empty((n, c, side, side), np.uint8)
        for place, image in enumerate(split.images.numpy()):
            mode = image[0] if c == 1 else image.transpose(1, 2, 0)
            array = np.asarray(square(Image.fromarray(mode), side))
            pixels[place] = array[None] if c == 1 else array.transpose(2, 0, 1)
        return Split(torch.from_numpy(pixels), split.labels)

    return Parts(parts.classes, each(parts.train), each(parts.test))
