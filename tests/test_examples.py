"""The examples run, on digits and on an image folder, and mask what they say."""

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

import augmentations
import bench
from bench.errors import Missing
from bench.points.lookup import knowing

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
LOOPS = ["plain_loop", "torchvision_v2", "albumentations_loop", "timm_loop"]
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_RESULTS", raising=False)
    monkeypatch.syspath_prepend(EXAMPLES)


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("kind", ["digits", "folder"])
def test_a_loop_trains_with_masks(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    deleted: list[int] = []
    plain = augmentations.AdvMask.mask

    def counted(self: Any, *arguments: Any) -> torch.Tensor:
        mask = plain(self, *arguments)
        deleted.append(int(mask.sum()))
        return mask

    monkeypatch.setattr(augmentations.AdvMask, "mask", counted)
    words = [] if kind == "digits" else [str(folder(tmp_path / "images"))]
    scope = runpy.run_path(str(EXAMPLES / f"{name}.py"))
    scope["main"](*words, epochs=1)
    assert float(capsys.readouterr().out.split("loss:")[1]) > 0
    assert len(deleted) >= (300 if kind == "digits" else 60)
    assert sum(count > 0 for count in deleted) > 0.2 * len(deleted)
    assert list((tmp_path / "results/points").glob("*.safetensors"))


def folder(path: Path) -> Path:
    """Images of two classes, none of them of the size that the examples want."""
    draws = np.random.default_rng(0)
    for kind, shade in (("dark", 60), ("light", 190)):
        (path / kind).mkdir(parents=True)
        for number in range(40):
            pixels = draws.integers(shade - 60, shade + 60, (40, 48, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(path / kind / f"{number}.png")
    return path


@pytest.mark.parametrize("kind", ["nothing", "an empty folder", "a file"])
def test_what_is_no_folder_of_images_is_said_in_one_line(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "given"
    if kind == "a file":
        place.touch()
    elif kind == "an empty folder":
        place.mkdir()
    main = runpy.run_path(str(EXAMPLES / "plain_loop.py"))["main"]
    with pytest.raises(SystemExit, match=f"^{place} is no folder with a subfolder of images .*"):
        main(str(place))


def test_own_code_can_be_named(tmp_path: Path) -> None:
    from bench import registry
    from bench.models import networks

    for kind, place in (("augmentations", "stripes.py:Stripes"), ("attacks", "sign.py:SignStep")):
        text = registry.admit(kind, f"{EXAMPLES / place}")  # type: ignore[arg-type]
        assert place.endswith(f":{type(registry.build(kind, text)).__name__}")  # type: ignore[arg-type]
    text = networks.admit(f"{EXAMPLES / 'net.py'}:make")
    assert networks.build(text, classes=3, mean=[0.0] * 3, std=[1.0] * 3, seed=0)


@pytest.mark.parametrize(
    ("package", "file", "cls", "name"),
    [
        ("augmentations", "stripes", "Stripes", "stripes"),
        ("attacks", "sign", "SignStep", "sign-step"),
    ],
)
def test_an_example_keeps_the_promises_of_every_method_once_it_is_registered(
    package: str, file: str, cls: str, name: str, tmp_path: Path
) -> None:
    """Registered as docs/architecture.md says, in a copy of the package."""
    files = "conftest.py", "planes.py", f"test_{package}.py"
    for part in (package, "pyproject.toml", *(f"tests/{each}" for each in files)):
        source, target = ROOT / part, tmp_path / part
        target.parent.mkdir(exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    shutil.copy(EXAMPLES / f"{file}.py", tmp_path / package)
    start = tmp_path / package / "__init__.py"
    text = f"from {package}.{file} import {cls}\n" + start.read_text()
    text, times = re.subn(r"(?m)^(BUILTIN: .*)$", rf'\1\n    "{name}": {cls},', text)
    assert times == 1
    start.write_text(text.replace("__all__ = [", f'__all__ = ["{cls}",'))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"tests/test_{package}.py", "-k",
         f"{name} or every_class or every_option"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 15


class Weighted(torch.nn.Module):
    """Two classes, told apart by a weighted sum of the pixels."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weights = torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(1))
        score = 5 * ((images - 0.5) * weights).sum((1, 2, 3))
        return torch.stack([-score, score], 1)


def small(seed: int = 0) -> TensorDataset:
    images = torch.randint(121, 135, (6, 3, 8, 8), generator=torch.Generator().manual_seed(seed))
    return TensorDataset(images / 255, torch.arange(6) % 2)


def test_points_are_found_again_by_content_and_a_change_is_noticed(tmp_path: Path) -> None:
    found = bench.find_points(Weighted(), small(), attack="advmask(steps=20)", quiet=True)
    again = bench.load_points(TensorDataset(*small().tensors))
    assert torch.equal(again.places, found.places)
    assert again.contents is not None
    assert found.contents is not None
    assert torch.equal(again.contents, found.contents)
    with pytest.raises(Missing, match=r"results/points has no points of these 6 images: find"):
        bench.load_points(small(1))
    images, labels = (each.clone() for each in small().tensors)
    images[2, 0, 0, 0] = 1.0
    with pytest.raises(Missing):
        bench.load_points(TensorDataset(images, labels))
    wrapped = augmentations.WithMask(
        TensorDataset(images, labels), augmentations.AdvMask(length=(1, 2)), again
    )
    assert wrapped[1][1] == 1
    with pytest.raises(ValueError, match="image 2 is not the one whose points were found"):
        wrapped[2]


def test_several_points_of_one_dataset_have_names(tmp_path: Path) -> None:
    for steps in (20, 30):
        bench.find_points(Weighted(), small(), attack=f"advmask(steps={steps})", quiet=True)
    with pytest.raises(ValueError, match=r"several points of these images, give a name: 'advmask"):
        bench.load_points(small())
    assert len(bench.load_points(small(), name="advmask(steps=20)")) == 6
    with pytest.raises(ValueError, match="there are no points 'mine' of these images; there are:"):
        bench.load_points(small(), name="mine")


def test_points_of_two_victims_are_told_apart_whatever_the_dataset_is_called(
    tmp_path: Path,
) -> None:
    bench.find_points(Weighted(), small(), attack="advmask(steps=20)", quiet=True)
    folder = tmp_path / "results" / "points"
    (path,) = folder.glob("*.safetensors")
    for digits in ("11111111", "99999999"):  # one before it, one behind
        shutil.copy(path, folder / f"other name (1)-{digits}.safetensors")
    with pytest.raises(ValueError, match="several points") as caught:
        bench.load_points(small())
    names = str(caught.value).partition("a name: ")[2].split(", ")
    assert len(names) == 3
    assert "'advmask(steps=20) #111111'" in names
    with pytest.raises(ValueError, match=r"there are no points 'advmask\(steps=20\)'"):
        bench.load_points(small(), name="advmask(steps=20)")
    assert len(bench.load_points(small(), name="advmask(steps=20) #999999")) == 6


def test_the_checksum_of_an_image_is_the_same_in_every_form() -> None:
    data = bench.from_arrays("own", *small().tensors, *small().tensors)
    points = bench.Points.of(torch.ones(6, 8, 8, dtype=torch.bool), torch.ones(6).bool(), {})
    known = knowing(points, data)
    grey = Image.fromarray((small().tensors[0][0] * 255).round().byte().permute(1, 2, 0).numpy())
    wrapped = augmentations.WithMask(
        [(grey, 0), *((image, 0) for image in small().tensors[0][1:])],
        augmentations.AdvMask(length=(1, 1)),
        known,
    )
    assert len([image for image, _ in wrapped]) == 6
