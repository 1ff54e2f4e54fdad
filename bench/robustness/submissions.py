"""Adversarial images that others submit: what a submission says, and how its folder is read.

Nothing in a submission is executed, followed or believed: tensors come from safetensors, texts from
JSON with a schema, images from PNG or BMP files whose size is known before they are decoded.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)
from torch import Tensor

from attacks.base import Images
from bench.data.splits import Split
from bench.errors import reason
from bench.files import checksums, plain, tensor_files
from bench.files.json_text import parse

ABOUT, TENSORS, TASK, README = (
    "submission.json",
    "adversarial.safetensors",
    "task.safetensors",
    "README.md",
)
LOSSLESS = (".png", ".bmp")
PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".npy", ".npz", ".ckpt", ".bin", ".joblib")
LARGEST_TEXT = 1 << 16  # bytes of submission.json
MOST_PASSES = 10**12  # of one image
SHARE = "a share from 0 to 1"

Goal = Literal["untargeted", "random", "least-likely", "next"]
Line = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Count = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Claims(BaseModel):
    """What the authors say about their attack; a leaderboard marks it *self-reported*."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    success: float = Field(ge=0, le=1, description=f"Success over all images, {SHARE}.")
    pixels_median: Count | None = Field(
        default=None, description="Median number of changed pixels, failures counted as infinite."
    )
    pixels_mean: Count | None = Field(
        default=None, description="Mean number of changed pixels over the successes."
    )
    elements_mean: Count | None = Field(
        default=None,
        description="Mean number of changed elements (channels counted) over the successes.",
    )
    passes: Count | None = Field(
        default=None,
        description="Mean number of forward and backward passes of an image, added up.",
    )


class About(BaseModel):
    """The file submission.json."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, title="Submission of adversarial images"
    )

    format: Literal[1] = Field(description="Version of this format.")
    attack: Annotated[
        str, StringConstraints(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f\x7f]+$")
    ] = Field(description="Name of the attack, with the options that matter.")
    authors: Line = Field(default="", description="Who submits.")
    link: Annotated[
        str, StringConstraints(max_length=200, pattern=r"^(https?://[^\s\"'<>]+)?$")
    ] = Field(default="", description="Address of a paper or of code: http or https.")
    note: Line = Field(default="", description="One line on what a reader should know.")
    victim: Line = Field(default="", description="Victim model, as tables and records name it.")
    data: Line = Field(default="", description="Dataset whose test images were attacked.")
    goal: Goal | None = Field(
        default=None,
        description="How the goal of an image is chosen; the targets of random are drawn from the "
        "seed. Left out: untargeted.",
    )
    seed: int = Field(default=0, ge=0, le=2**31, description="Seed of random targets.")
    eps: Annotated[str, StringConstraints(max_length=20, pattern=r"^\d+(/\d+|\.\d+)?$")] | None = (
        Field(
            default=None,
            description='Largest change of a value, such as "8/255"; left out: no bound.',
        )
    )
    images: int | None = Field(
        default=None,
        ge=1,
        le=10**7,
        description="Number of images under attack, failures included.",
    )
    claims: Claims | None = Field(default=None, description="What the authors report.")

    @field_validator("eps")
    @classmethod
    def _bound(cls, value: str | None) -> str | None:
        if value is None:
            return None
        number, _, part = value.partition("/")
        if (part and not int(part)) or not 0 < Fraction(value if part else number) <= 1:
            raise ValueError("must be above 0 and at most 1, such as 8/255")
        return value


def schema() -> str:
    """The JSON schema of submission.json."""
    return json.dumps(About.model_json_schema(), indent=2) + "\n"


@dataclass(frozen=True)
class Submission:
    """A folder of adversarial images, read and checked but not judged.

    Attributes:
        about: What submission.json says; None without it.
        ids: Indices of the n images in the test set, each once, ascending.
        images: The images in float32, shape (n, c, h, w); finite, but not necessarily in [0, 1].
        passes: Reported forward and backward passes of each image; None where not given.
        digest: Checksum of indices and images.
    """

    about: About | None
    ids: Int[Tensor, " n"]
    images: Images
    passes: Int[Tensor, " n"] | None
    digest: str


def read_about(folder: Path) -> About | None:
    """Read submission.json, or a file of that kind by its own path; None if it is not there.

    Raises:
        ValueError: It is not JSON, or does not follow the schema; the first fault is named.
    """
    place, name = (folder, ABOUT) if folder.is_dir() else (folder.parent, folder.name)
    try:
        content = plain.content(place / name, LARGEST_TEXT)
    except FileNotFoundError:
        return None
    path = place / name
    try:
        value = parse(content)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {reason(error)}") from error
    try:
        return About.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        said = first["msg"].removeprefix("Value error, ")
        raise ValueError(
            f"{path} does not follow the schema (bench judge --schema): {where}: {said}"
        ) from None


def read(folder: Path, test: Split) -> Submission:
    """Read a folder of adversarial images.

    Args:
        folder: Holds ``adversarial.safetensors``, or one PNG or BMP file per image that is named by
            its index; beside it ``submission.json``.
        test: The test images that were attacked; they give size and range of indices.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: There is no image, or something in the folder is not of the format.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder} of adversarial images: --prepare makes it, with the "
            "images to attack"
        )
    n = len(test.labels)
    found = plain.names(folder, n + 4)
    images = [name for name in found if Path(name).suffix.lower() in LOSSLESS]
    for name in found:
        if name not in (ABOUT, TENSORS, TASK, README, *images):
            raise ValueError(f"{folder / name} is refused: {_refusal(name)}")
    if TENSORS in found and images:
        raise ValueError(f"{folder} has {TENSORS} beside {images[0]}: give one or the other")
    if TENSORS not in found and not images:
        raise ValueError(
            f"{folder} has no adversarial images: give {TENSORS} with the tensors indices and "
            "images, or one PNG or BMP file per image, named by its index"
        )
    about = read_about(folder)
    passes = None
    if images:
        ids, adversarial = _image_files(folder, images, test)
    else:
        ids, adversarial, passes = _tensors(folder, test)
    order = ids.argsort()
    ids, adversarial = ids[order], adversarial[order]
    return Submission(
        about,
        ids,
        adversarial,
        None if passes is None else passes[order],
        checksums.of_tensors({"ids": ids, "images": adversarial})[:16],
    )


def _refusal(name: str) -> str:
    suffix = Path(name).suffix.lower()
    if suffix in PICKLES:
        return f"files of this kind can hold programs and are never loaded; save {TENSORS}"
    if suffix in (".jpg", ".jpeg", ".webp", ".gif", ".avif", ".heic"):
        return "this format changes pixels or colours; save PNG or BMP"
    return f"a submission holds {ABOUT} and {TENSORS}, or images such as 00012.png"


def _indices(ids: Int[Tensor, " n"], n: int, where: Path) -> None:
    """Refuse indices outside the test set, and those that come twice."""
    outside = ids[(ids < 0) | (ids >= n)]
    if len(outside):
        raise ValueError(
            f"{where} has the index {int(outside[0])}, but there are {n} test images, from 0 to "
            f"{n - 1}"
        )
    values, counts = ids.unique(return_counts=True)
    if len(values) < len(ids):
        raise ValueError(f"{where} has the index {int(values[counts > 1][0])} twice")


def _tensors(folder: Path, test: Split) -> tuple[Tensor, Images, Tensor | None]:
    path, n = folder / TENSORS, len(test.labels)
    largest = n * (4 * test.images[0].numel() + 16) + (1 << 20)
    tensors = tensor_files.unpack(plain.content(path, largest), str(path))
    _check_form(tensors, tuple(test.images.shape[1:]), path)
    ids, images, passes = tensors["indices"], tensors["images"], tensors.get("passes")
    _indices(ids, n, path)
    if images.dtype == torch.uint8:
        images = images.float() / 255
    finite = images.isfinite().flatten(1).all(1)
    if not finite.all():
        raise ValueError(
            f"image {int(ids[~finite][0])} of {path} has values that are not finite (NaN or "
            "infinity)"
        )
    if passes is not None and int(passes.min()) < 0:
        raise ValueError(f"passes of {path} are below 0 for image {int(ids[passes.argmin()])}")
    if passes is not None and int(passes.max()) > MOST_PASSES:
        raise ValueError(
            f"passes of {path} are {int(passes.max())} for image {int(ids[passes.argmax()])}: give "
            f"at most {MOST_PASSES}"
        )
    return ids.long(), images, None if passes is None else passes.long()


def _check_form(tensors: Mapping[str, Tensor], shape: tuple[int, ...], path: Path) -> None:
    """Refuse tensors with other names, types or shapes than those of the format."""
    if missing := {"indices", "images"} - tensors.keys():
        raise ValueError(f"{path} has no tensor {min(missing)!r}")
    if unknown := tensors.keys() - {"indices", "images", "passes"}:
        raise ValueError(f"{path} has the unknown tensor {min(unknown)[:80]!r}; remove it")
    ids, images = tensors["indices"], tensors["images"]
    for name in ("indices", "passes"):
        each = tensors.get(name, ids)
        flat = each.ndim == 1 and ids.ndim == 1 and len(each) == len(ids)
        if each.dtype not in (torch.int64, torch.int32) or not flat:
            raise ValueError(
                f"{name} of {path} has type {_type(each)} and shape {tuple(each.shape)}: give one "
                "int64 per image"
            )
    if images.dtype not in (torch.float32, torch.uint8):
        raise ValueError(
            f"images of {path} have type {_type(images)}: give float32 in [0, 1], or uint8"
        )
    if tuple(images.shape) != (len(ids), *shape):
        raise ValueError(
            f"images of {path} have shape {tuple(images.shape)} for {len(ids)} indices: give "
            f"{(len(ids), *shape)}"
        )
    if not len(ids):
        raise ValueError(f"{path} has no image")


def _image_files(folder: Path, names: list[str], test: Split) -> tuple[Tensor, Images]:
    n, c, h, w = test.images.shape
    ids = []
    for name in names:
        if not re.fullmatch(r"[0-9]{1,18}", Path(name).stem):
            raise ValueError(
                f"{folder / name} is refused: its name is not the index of a test image, such as "
                "00012.png"
            )
        ids.append(int(Path(name).stem))
    indices = torch.tensor(ids)
    _indices(indices, n, folder)
    pixels = np.empty((len(names), h, w, c), np.uint8)
    for place, name in enumerate(names):
        pixels[place] = _pixels(folder, name, (c, h, w))
    return indices, torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() / 255


def _pixels(folder: Path, name: str, shape: tuple[int, int, int]) -> np.ndarray:
    """The bytes of one image file, shape (h, w, c); nothing is decoded before its size is known."""
    from PIL import Image

    c, h, w = shape
    path, mode = folder / name, "L" if c == 1 else "RGB"
    content = plain.content(path, 8 * c * h * w + (1 << 16))
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "BMP")) as file:
            if file.size != (w, h):
                raise ValueError(f"it has {file.width}x{file.height} pixels instead of {w}x{h}")
            if file.mode != mode or getattr(file, "n_frames", 1) != 1:
                raise ValueError(
                    f"its mode is {file.mode}: save one image of 8 bits in mode {mode}, without "
                    "transparency or palette"
                )
            return np.asarray(file).reshape(h, w, c)
    except Exception as error:  # a damaged image raises what its bytes happen to mean
        said = "it is not a PNG or BMP" if "identify" in str(error) else reason(error)
        raise ValueError(f"{path} cannot be read: {said}") from error


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def template(attack: str, **known: Any) -> str:
    """The text of a submission.json to start from."""
    return About(format=1, attack=attack, **known).model_dump_json(indent=2) + "\n"
