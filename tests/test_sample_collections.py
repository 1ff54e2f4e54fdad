"""Datasets of Hugging Face and WebDataset, read from this machine."""

import gc
import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from bench.cli import main
from bench.data import catalog
from bench.errors import Missing


def pixels(number: int, side: int = 8) -> Any:
    return np.random.default_rng(number).integers(0, 256, (side, side, 3)).astype(np.uint8)


def saved(folder: Path, splits: tuple[str, ...] = ("train", "validation")) -> str:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["dark", "light"])}
    )
    parts = {
        split: datasets.Dataset.from_dict(
            {"picture": [Image.fromarray(pixels(10 * place + i)) for i in range(4)],
             "kind": [0, 1, 0, 1]},
            features=features,
        )
        for place, split in enumerate(splits)
    }  # fmt: skip
    datasets.DatasetDict(parts).save_to_disk(str(folder / "mine"))
    return f"hf:{folder / 'mine'}"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_dataset_of_hugging_face_has_its_pixels_and_classes(tmp_path: Path) -> None:
    data = catalog.load(saved(tmp_path))
    assert data.name == "mine-hf"
    assert data.classes == ("dark", "light")
    assert data.train.labels.tolist() == data.test.labels.tolist() == [0, 1, 0, 1]
    wanted = torch.from_numpy(np.stack([pixels(10 + i) for i in range(4)])).permute(0, 3, 1, 2)
    assert torch.equal(torch.as_tensor(data.test.images[:]), wanted)
    assert data.pin
    (tmp_path / "one").mkdir()
    with pytest.raises(ValueError, match=r"has no test split: it has train"):
        catalog.load(saved(tmp_path / "one", ("train",)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_hub_is_not_asked_without_download() -> None:
    pytest.importorskip("datasets")
    with pytest.raises(Missing, match="hf:no-such-owner/no-such-data is not on this machine: add"):
        catalog.load("hf:no-such-owner/no-such-data")


def shard(path: Path, samples: list[dict[str, bytes]]) -> None:
    with tarfile.open(path, "w") as file:
        for number, sample in enumerate(samples):
            for ending, content in sample.items():
                about = tarfile.TarInfo(f"{number:04d}.{ending}")
                about.size = len(content)
                file.addfile(about, io.BytesIO(content))


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(number)).save(buffer, "PNG")
    return buffer.getvalue()


def shards(folder: Path) -> None:
    for part, count in (("train-000", 3), ("train-001", 2), ("val-000", 2)):
        first = sum(map(ord, part))
        samples = [{"png": png(first + i), "cls": str(i % 2).encode()} for i in range(count)]
        shard(folder / f"{part}.tar", samples)


@pytest.mark.filterwarnings("ignore")
def test_shards_of_web_dataset_are_read_in_order(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    (tmp_path / "flowers").mkdir()
    shards(tmp_path / "flowers")
    data = catalog.load(f"wds:{tmp_path / 'flowers'}")
    assert data.name == "flowers-wds"
    assert data.train.labels.tolist() == [0, 1, 0, 0, 1]
    assert data.test.labels.tolist() == [0, 1]
    first = torch.from_numpy(pixels(sum(map(ord, "train-000")))).permute(2, 0, 1)
    assert torch.equal(data.train.images[0], first)
    same = catalog.load(f"wds:{tmp_path / 'flowers' / '*.tar'}")
    assert same.digest == data.digest
    assert catalog.load(f"wds:{tmp_path / 'flowers'}(side=4)").train.images.shape[-1] == 4


class Executed:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was executed",))


@pytest.mark.filterwarnings("ignore")
def test_nothing_in_a_shard_is_executed_and_damage_is_named(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    shards(tmp_path)
    bad = {"png": png(1), "cls": b"0", "pyd": pickle.dumps(Executed()), "pickle": b"x"}
    shard(tmp_path / "train-000.tar", [bad])
    assert len(catalog.load(f"wds:{tmp_path}").train.labels) == 3
    for sample, text in (
        ({"png": b"no image", "cls": b"0"}, "sample 0000 of .* is not an image of JPEG"),
        ({"png": png(1), "cls": b"one"}, "cannot be read: invalid literal"),
        ({"png": png(1), "cls": b"-1"}, "has the class -1: classes count from 0"),
        ({"json": json.dumps({}).encode()}, "has no image and .cls file: it has json"),
    ):
        shard(tmp_path / "train-000.tar", [sample])
        with pytest.raises(ValueError, match=text):
            catalog.load(f"wds:{tmp_path}")
    (tmp_path / "val-000.tar").unlink()
    shard(tmp_path / "train-000.tar", [bad])
    with pytest.raises(ValueError, match=r"has no test part: call its files test-000\.tar"):
        catalog.load(f"wds:{tmp_path}")
    with pytest.raises(Missing, match="no file matches"):
        catalog.load(f"wds:{tmp_path}/none-*.tar")
    with pytest.raises(Missing, match="no file matches"):
        catalog.load("wds:pipe:touch executed")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_takes_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("webdataset")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flowers").mkdir()
    shards(tmp_path / "flowers")
    words = ["run", "--data", "wds:flowers", "--aug", "none", "--model", "resnet8", "--seeds", "1",
             "--epochs", "1", "--validation", "0", "--no-tracking", "--quiet"]  # fmt: skip
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "flowers-wds" in done.stdout


@pytest.mark.filterwarnings("ignore")
def test_shards_belong_to_a_part_by_the_words_of_their_names(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    samples = [{"png": png(i), "cls": b"0"} for i in range(4)]
    for name, count in (
        ("latest-train-000", 4),
        ("latest-val-000", 2),
    ):  # "latest" has "test" in it
        shard(tmp_path / f"{name}.tar", samples[:count])
    data = catalog.load(f"wds:{tmp_path}")
    assert (len(data.train.labels), len(data.test.labels)) == (4, 2)
    shard(tmp_path / "latest-test-000.tar", samples[:3])  # with a test part, val is none
    assert len(catalog.load(f"wds:{tmp_path}").test.labels) == 3
    shard(tmp_path / "train-test-000.tar", samples)
    with pytest.raises(
        ValueError, match=r"train-test-000\.tar of .* of the training and of the test"
    ):
        catalog.load(f"wds:{tmp_path}")


@pytest.mark.filterwarnings("ignore")
def test_what_is_no_tar_file_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    shards(tmp_path)
    (tmp_path / "train-001.tar").write_bytes(b"garbage" * 200)
    with pytest.raises(ValueError, match=r"^a file of wds:.* is no whole tar file: ") as caught:
        catalog.load(f"wds:{tmp_path}")
    assert "\n" not in str(caught.value)
    del caught
    gc.collect()  # the library leaves the file to the garbage collector
