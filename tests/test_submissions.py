"""Submitted images: judged as those of our own attacks are, and nothing hostile gets through."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from attacks import Goal
from bench.cli import main
from bench.data import catalog
from bench.records.record import Record
from bench.records.store import Store
from bench.robustness import submissions
from bench.robustness.judge import correct_images, judge
from bench.robustness.rejudging import Judged, Terms, check_victim
from bench.training import victims

ROOT = Path(__file__).parent.parent
TEST = catalog.load("digits").test
SHAPE = tuple(TEST.images.shape[1:])


class Means(nn.Module):
    """Digits by the nearest mean image of a class, which is a linear rule."""

    def __init__(self) -> None:
        super().__init__()
        train = catalog.load("digits").train
        images = train.images.float().flatten(1) / 255
        means = torch.stack([images[train.labels == label].mean(0) for label in range(10)])
        self.linear = nn.Linear(means.shape[1], 10)
        self.linear.load_state_dict({"weight": 2 * means, "bias": -means.square().sum(1)})

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(images.flatten(1))
        return logits


NETWORK = Means().eval()


@pytest.fixture(autouse=True)
def _victim(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from bench.robustness import evaluation

    monkeypatch.setattr(victims, "obtain", lambda *_: NETWORK)
    evaluation._victims.clear()
    yield
    evaluation._victims.clear()


def bench(results: Path, *arguments: str) -> Result:
    command, *rest = arguments
    data = ("--data", "digits", "--quiet") if command == "judge" else ()
    return CliRunner().invoke(main, [command, *rest, *data, "--results", str(results)])


def judged(results: Path, folder: Path, *arguments: str) -> dict[str, Any]:
    result = bench(results, "judge", str(folder), "--json", *arguments)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def refusal(results: Path, folder: Path, *arguments: str) -> str:
    result = bench(results, "judge", str(folder), *arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = result.output.strip().splitlines()
    assert not (results / "records.jsonl").exists()
    return line


def submit(folder: Path, ids: Tensor, adversarial: Tensor, **about: object) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({"indices": ids, "images": adversarial.contiguous()}, folder / submissions.TENSORS)
    if about:
        text = json.dumps({"format": 1, "attack": "theirs"} | about)
        (folder / submissions.ABOUT).write_text(text)
    return folder


CHOSEN = correct_images(NETWORK, TEST, 4, "cpu")
"""The four images under attack of ``--images 4``."""


def attacked() -> Tensor:
    """Two successes with 64 and 63 changed pixels, one unchanged image, one beyond [0, 1]."""
    images = CHOSEN.images.clone()
    other = correct_images(NETWORK, TEST, 40, "cpu")
    for row in (0, 1, 3):
        away = (other.labels != CHOSEN.labels[row]).nonzero()[0, 0]
        images[row] = other.images[away]
    images[3, 0, 0, 0] = 1.5
    return images


def test_images_are_judged_as_ours_are(tmp_path: Path) -> None:
    images = attacked()
    folder = submit(tmp_path / "in", CHOSEN.ids, images)
    found = judged(tmp_path / "out", folder, "--images", "4", "--eps", "1")
    assert [each["index"] for each in found["per_image"]] == CHOSEN.ids.tolist()
    assert [each["success"] for each in found["per_image"]] == [True, True, False, False]
    assert found["metrics"]["success"] == 0.5
    assert found["metrics"]["outside_box"] == 1
    assert found["unchanged"] == [int(CHOSEN.ids[2])]
    changed = (images != CHOSEN.images)[:2].flatten(1).sum(1)
    assert [each["l0_pixels"] for each in found["per_image"][:2]] == changed.tolist()
    assert found["metrics"]["l0_pixels_mean"] == changed.double().mean()
    (record,) = Store(tmp_path / "out").all()
    assert record.labels["source"] == "re-judged from images"
    assert "forwards" not in record.metrics
    written = (tmp_path / "out/records.jsonl").read_bytes()
    assert judged(tmp_path / "out", folder, "--images", "4", "--eps", "1") == found
    assert (tmp_path / "out/records.jsonl").read_bytes() == written  # not a second record


def test_what_is_missing_counts_as_a_failure(tmp_path: Path) -> None:
    folder = submit(tmp_path / "in", CHOSEN.ids[:1], attacked()[:1])
    found = judged(tmp_path / "out", folder, "--images", "4")
    assert found["metrics"]["success"] == 0.25
    assert found["missing"] == CHOSEN.ids[1:].tolist()
    result = bench(tmp_path / "out", "judge", str(folder), "--images", "4")
    assert "missing, counted as failures: 3" in result.stdout
    assert "Missing: the passes of each image" in result.stdout


def test_more_than_eps_is_a_failure(tmp_path: Path) -> None:
    folder = submit(tmp_path / "in", CHOSEN.ids, attacked())
    found = judged(tmp_path / "out", folder, "--images", "4", "--eps", "0.01")
    assert found["metrics"]["success"] == 0
    assert found["metrics"]["beyond_eps"] == 3


def test_images_that_are_not_under_attack_do_not_count(tmp_path: Path) -> None:
    wrong = (NETWORK(TEST.images.float() / 255).argmax(1) != TEST.labels).nonzero()[:1, 0]
    ids = torch.cat([CHOSEN.ids, wrong])
    images = torch.cat([attacked(), TEST.images[wrong].float() / 255])
    folder = submit(tmp_path / "in", ids, images)
    assert judged(tmp_path / "out", folder, "--images", "4")["extra"] == wrong.tolist()
    alone = judged(tmp_path / "alone", folder)  # without a number: those submitted, no record
    assert (alone["images"], alone["extra"], alone["stored"]) == (4, wrong.tolist(), False)
    assert alone["metrics"]["success"] == 0.5
    assert not (tmp_path / "alone/records.jsonl").exists()


def test_the_order_of_the_images_does_not_matter(tmp_path: Path) -> None:
    order = torch.tensor([2, 0, 3, 1])
    first = submit(tmp_path / "a", CHOSEN.ids, attacked())
    second = submit(tmp_path / "b", CHOSEN.ids[order], attacked()[order])
    one, two = (judged(tmp_path / "out", each, "--images", "4") for each in (first, second))
    assert one == two
    assert len(Store(tmp_path / "out").all()) == 1


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_lossless_image_files_give_the_same_as_bytes(tmp_path: Path, suffix: str) -> None:
    levels = (attacked().clamp(0, 1) * 255).round().to(torch.uint8)
    folder = tmp_path / "files"
    folder.mkdir()
    for index, image in zip(CHOSEN.ids.tolist(), levels, strict=True):
        Image.fromarray(image[0].numpy()).save(folder / f"{index:05d}.{suffix}")
    whole = submit(tmp_path / "whole", CHOSEN.ids, levels)
    one, two = (judged(tmp_path / "out", each, "--images", "4") for each in (folder, whole))
    assert one == two
    assert one["unchanged"] == [int(CHOSEN.ids[2])]


def test_a_targeted_submission_is_judged_by_the_same_targets(tmp_path: Path) -> None:
    images = CHOSEN.images.clone()
    every = correct_images(NETWORK, TEST, 60, "cpu")
    target = (int(CHOSEN.labels[0]) + 1) % 10
    images[0] = every.images[(every.labels == target).nonzero()[0, 0]]
    folder = submit(tmp_path / "in", CHOSEN.ids, images, goal="next", images=4)
    found = judged(tmp_path / "out", folder)
    assert (found["goal"], found["aim"], found["images"]) == ("next", "next", 4)
    assert [each["success"] for each in found["per_image"]] == [True, False, False, False]


def test_what_submission_json_says_must_not_be_contradicted(tmp_path: Path) -> None:
    folder = submit(tmp_path / "in", CHOSEN.ids, attacked(), eps="8/255", data="digits")
    said = refusal(tmp_path / "out", folder, "--eps", "16/255")
    assert said == (
        "Error: submission.json says that eps is 8/255, but --eps is 16/255; leave it out"
    )
    submit(folder, CHOSEN.ids, attacked(), data="cifar10")
    assert "is about cifar10, but --data is digits" in refusal(tmp_path / "out", folder)


VICTIM = victims.choose(catalog.load("digits"))


@pytest.mark.parametrize("named", ["", VICTIM.name, VICTIM.model, VICTIM.name.split()[1]])
def test_a_submission_may_name_its_victim_or_a_part_of_it(named: str, tmp_path: Path) -> None:
    folder = submit(tmp_path / "in", CHOSEN.ids, attacked(), victim=named)
    assert judged(tmp_path / "out", folder, "--images", "4")["victim"] == VICTIM.name


@pytest.mark.parametrize("named", ["foo", f"{VICTIM.model} 0123456789ab", "resnet20"])
def test_a_submission_about_another_victim_is_refused(named: str, tmp_path: Path) -> None:
    folder = submit(tmp_path / "in", CHOSEN.ids, attacked(), victim=named)
    assert refusal(tmp_path / "out", folder, "--images", "4") == (
        f"Error: submission.json says that victim is {named}, but --victim and --model give "
        f"{VICTIM.name}; give the one that it names, or correct the file"
    )


WEIGHTS = Path("/somewhere/my net.safetensors")


@pytest.mark.parametrize(
    "named",
    [
        "my net.safetensors",
        "my net",
        "weights/my net.safetensors",
        "resnet20 0123456789ab",
        "resnet20 my net.safetensors 0123456789ab",
    ],
)
def test_a_submission_may_name_the_file_of_weights(named: str) -> None:
    mean = (0.4914008989, 0.4821590014, 0.4465309910) * 6
    victim = victims.Victim(
        model="resnet20", data="cifar10", path=WEIGHTS, digest="0123456789ab", mean=mean
    )
    check_victim(named, victim)
    assert len(victim.name) > 200
    check_victim(victim.name[:200], victim)
    with pytest.raises(ValueError, match=r"says that victim is resnet20 my net\.pt"):
        check_victim("resnet20 my net.pt", victim)


def test_a_factory_may_be_named_without_the_content_of_its_file() -> None:
    victim = victims.Victim(model="mine.py:make@0123456789ab", data="digits", digest="ba98")
    check_victim("mine.py:make", victim)
    check_victim("timm:vit", victims.Victim(model="timm:vit", data="digits"))
    check_victim("vit", victims.Victim(model="timm:vit", data="digits"))


def test_different_submissions_of_one_name_are_not_averaged_as_seeds(tmp_path: Path) -> None:
    """The name is that of the template; the last of them counts."""
    levels = [attacked(), CHOSEN.images, attacked()]
    levels[2][1] = CHOSEN.images[1]
    for place, images in enumerate(levels):
        folder = submit(tmp_path / str(place), CHOSEN.ids, images, attack="my-attack")
        judged(tmp_path / "out", folder, "--images", "4")
    assert len(Store(tmp_path / "out").all()) == 3
    shown = bench(tmp_path / "out", "tables", "attacks", "--format", "json")
    (entry,) = json.loads(shown.stdout)
    assert (entry["seeds"], entry["success"]["mean"]) == ([0], 0.25)
    assert bench(tmp_path / "out", "leaderboard").exit_code == 0
    ((row,),) = [
        each["entries"]
        for each in json.loads((tmp_path / "out/leaderboard/index.json").read_text())
    ]
    assert (row["seeds"], row["success"]["value"]) == (1, 0.25)


def test_a_prepared_folder_can_be_submitted(tmp_path: Path) -> None:
    folder, out = tmp_path / "task", tmp_path / "out"
    result = bench(out, "judge", str(folder), "--prepare", "--images", "4", "--target", "next")
    assert result.exit_code == 0, result.output
    from safetensors.torch import load_file

    task = load_file(folder / submissions.TASK)
    assert torch.equal(task["images"], CHOSEN.images)
    assert torch.equal(task["targets"], (CHOSEN.labels + 1) % 10)
    save_file({name: task[name] for name in ("indices", "images")}, folder / submissions.TENSORS)
    found = judged(out, folder)
    assert (found["aim"], found["images"], found["missing"]) == ("next", 4, [])
    assert found["unchanged"] == CHOSEN.ids.tolist()
    assert "give the number of images" in refusal(tmp_path / "o", tmp_path / "new", "--prepare")
    # what was prepared before is not contradicted without a word
    for words, text in (
        (("--images", "5"), "says that images is 4, but --images is 5; leave it out"),
        (("--images", "4", "--target", "random"), "says that goal is next, but --target is random"),
    ):
        assert text in refusal(tmp_path / "o", folder, "--prepare", *words)
    assert torch.equal(load_file(folder / submissions.TASK)["images"], CHOSEN.images)


def test_one_submission_is_one_record_whatever_seed_is_typed(tmp_path: Path) -> None:
    folder = submit(tmp_path / "in", CHOSEN.ids, CHOSEN.images)
    said = refusal(tmp_path / "out", folder, "--seed", "3")
    assert "--seed 3 has no effect on the goal untargeted: leave it out" in said


def test_images_of_huge_values_give_valid_json(tmp_path: Path) -> None:
    images = CHOSEN.images.clone()
    images[0], images[1] = 3e38, 1e30
    found = judged(tmp_path / "out", submit(tmp_path / "in", CHOSEN.ids, images))
    assert None in [each["l2"] for each in found["per_image"]]


def test_originals_from_another_division_are_noticed(tmp_path: Path) -> None:
    images = (CHOSEN.images + 1e-7).clamp(0, 1)
    folder = submit(tmp_path / "in", CHOSEN.ids, images)
    result = bench(tmp_path / "out", "judge", str(folder))
    assert "were the originals taken as bytes / 255 in float32?" in result.stdout


# what is hostile


def tensors(**changes: Tensor | None) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        found = {"indices": CHOSEN.ids, "images": CHOSEN.images.clone()} | changes
        kept = {name: each.clone().contiguous() for name, each in found.items() if each is not None}
        save_file(kept, folder / submissions.TENSORS)

    return write


def content(name: str, data: bytes) -> Callable[[Path], None]:
    return files(**{name: data})


def about(**fields: object) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        tensors()(folder)
        (folder / submissions.ABOUT).write_text(json.dumps({"format": 1, "attack": "x"} | fields))

    return write


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int = 8, colour: int = 0) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = zlib.compress(b"\0" * 200)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


class Evil:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, ("/tmp/bench-was-hacked",)


def sparse_file(folder: Path) -> None:
    with (folder / submissions.TENSORS).open("wb") as file:
        file.truncate(1 << 40)


def files(**named: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name, data in named.items():
            (folder / name).write_bytes(data)

    return write


def with_tensors(name: str, data: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        tensors()(folder)
        (folder / name).write_bytes(data)

    return write


NAN = CHOSEN.images.clone()
NAN[1, 0, 0, 0] = float("nan")
PICKLE = pickle.dumps(Evil())
HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickle": (content("adversarial.pt", PICKLE), "can hold programs and are never loaded"),
    "pickle in disguise": (content(submissions.TENSORS, PICKLE), "is not a safetensors file"),
    "link": (
        lambda folder: (folder / submissions.TENSORS).symlink_to("/etc/passwd"),
        "is refused: it is a link",
    ),
    "device": (
        lambda folder: (folder / "0.png").symlink_to("/dev/zero"),
        "is refused: it is a link",
    ),
    "pipe": (lambda folder: os.mkfifo(folder / "0.png"), "it is not a regular file"),
    "folder": (lambda folder: (folder / "0.png").mkdir(), "it is not a regular file"),
    "large file": (
        sparse_file,
        "bytes, at most",
    ),
    "huge image": (content("0.png", png(60_000, 60_000)), "cannot be read: Image size"),
    "wrong size": (content("0.png", png(9, 8)), "it has 9x8 pixels instead of 8x8"),
    "16 bits": (content("0.png", png(8, 8, bits=16)), "save one image of 8 bits in mode L"),
    "palette": (content("0.png", png(8, 8, colour=2)), "its mode is RGB"),
    "no image": (content("0.png", b"MZ"), "it is not a PNG or BMP"),
    "lossy": (content("0.jpg", b""), "this format changes pixels or colours; save PNG or BMP"),
    "name": (content("..%2f0.png", png(8, 8)), "its name is not the index of a test image"),
    "twice": (
        files(**{name: png(8, 8) for name in ("1.png", "01.png")}),
        "the index 1 twice",
    ),
    "program": (content("setup.py", b""), "a submission holds submission.json and"),
    "empty": (lambda folder: None, "has no adversarial images"),
    "both": (
        with_tensors("1.png", b""),
        "give one or the other",
    ),
    "nan": (tensors(images=NAN), f"image {int(CHOSEN.ids[1])} of"),
    "float64": (tensors(images=CHOSEN.images.double()), "have type float64: give float32"),
    "shape": (tensors(images=CHOSEN.images[:, :, 1:]), "for 4 indices: give (4, 1, 8, 8)"),
    "scalar": (tensors(indices=torch.tensor(1)), "give one int64 per image"),
    "float indices": (tensors(indices=CHOSEN.ids.float()), "indices of"),
    "outside": (tensors(indices=CHOSEN.ids + 10**6), "test images, from 0 to"),
    "negative": (tensors(indices=-1 - CHOSEN.ids), "test images, from 0 to"),
    "repeated": (tensors(indices=CHOSEN.ids * 0), "the index 0 twice"),
    "no indices": (tensors(indices=None), "has no tensor 'indices'"),
    "unknown": (tensors(code=CHOSEN.ids), "the unknown tensor 'code'"),
    "negative passes": (tensors(passes=CHOSEN.ids - 10**6), "are below 0"),
    "many passes": (
        tensors(passes=torch.tensor([3, 2**62, 4, 5])),
        f"are {2**62} for image {int(CHOSEN.ids[1])}: give at most 1000000000000",
    ),
    "unknown field": (about(file="../../etc/passwd"), "file: Extra inputs are not permitted"),
    "script": (about(link="javascript:alert(1)"), "link: String should match pattern"),
    "wrong type": (about(images="200"), "images: Input should be a valid integer"),
    "eps": (about(eps="3/2"), "eps: must be above 0 and at most 1"),
    "zero eps": (about(eps="1/0"), "eps: must be above 0 and at most 1"),
    "claims": (about(claims={"success": 2}), "claims.success: Input should be less than or"),
    "newline": (about(attack="a\nb"), "attack: String should match pattern"),
    "nested": (
        with_tensors(submissions.ABOUT, b"[" * 10**4),
        "is not JSON",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_folder_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    make, why = HOSTILE[kind]
    folder = tmp_path / "in"
    folder.mkdir()
    make(folder)
    said = refusal(tmp_path / "out", folder)
    assert why in said
    assert len(said) < 700
    assert not Path("/tmp/bench-was-hacked").exists()


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    assert "of adversarial images: --prepare makes it" in refusal(
        tmp_path / "out", tmp_path / "nothing"
    )


class Counted(list[int]):
    """Counts how often its entries are gone through."""

    count = 0

    def __iter__(self) -> Iterator[int]:
        self.count += 1
        return super().__iter__()


def test_missing_images_are_gone_through_once_for_all_images() -> None:
    images, ids = CHOSEN.images, CHOSEN.ids.tolist()
    labels = {"attack": "theirs", "victim": "means", "data": "digits"}
    missing = Counted(ids[:3])
    found = Judged(
        record=Record(kind="attack", key="a", seed=0, labels=labels, metrics={}),
        terms=Terms(eps="1", aim="untargeted", seed=0, images=4),
        ids=ids,
        verdict=judge(NETWORK, images, CHOSEN.labels, Goal(CHOSEN.labels), images, 1.0),
        missing=missing,
        extra=[],
        unchanged=[],
        almost=[],
    ).to_json()
    assert [each["not_submitted"] for each in found["per_image"]] == [True, True, True, False]
    assert missing.count == 1


def test_too_many_files_are_not_listed(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(len(TEST.labels) + 5):
        (folder / f"{number}.png").touch()
    assert "has more than" in refusal(tmp_path / "out", folder)


def test_the_schema_of_the_documentation_is_that_of_the_program() -> None:
    kept = (ROOT / "docs/reference/submission.schema.json").read_text()
    assert CliRunner().invoke(main, ["judge", "--schema"]).stdout == kept
    assert json.loads(kept)["additionalProperties"] is False
