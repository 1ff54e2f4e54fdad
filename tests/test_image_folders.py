"""Folders and zips of images: how they are read, which are refused, and the decoded copy."""

import io
import os
import re
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import archive, folder, image_file, tree, values
from PIL import Image

from bench.data import image_files
from bench.data.catalog import load

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("top", ["", "some/where/"])
def test_images_are_read_from_folder_and_zip(tmp_path: Path, packed: bool, top: str) -> None:
    files = {top + name: data for name, data in tree().items()}
    files |= {f"{top}.hidden/x.png": b"", f"{top}__MACOSX/._x.png": b"", f"{top}README.txt": b"hi"}
    path = archive(tmp_path / "a.zip", files) if packed else folder(tmp_path / "a", files)
    data = load(str(path))
    assert data.classes == ("ant", "bee")
    assert values(data.train) == [0, 1, 2, 100, 101, 102]
    assert values(data.test) == [10, 11, 110, 111]
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.train.images.shape == (6, 3, 6, 6)
    assert data.source == str(path)
    assert data.train.ids.tolist() == list(range(6))


def test_class_folders_alone_get_a_fixed_fifth_to_test_with(tmp_path: Path) -> None:
    files = {f"{name}/{k}.png": image_file(k) for name in ("ant", "bee") for k in range(10)}
    data = load(str(folder(tmp_path / "a", files)))
    assert (len(data.train), len(data.test)) == (16, 4)
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    assert data.digest == load(str(archive(tmp_path / "b.zip", files))).digest


def test_images_of_many_sizes_become_squares(tmp_path: Path) -> None:
    files = tree() | {
        "train/ant/0.png": image_file(0, (9, 5)),
        "test/bee/1.png": image_file(111, (5, 9)),
    }
    path = folder(tmp_path / "a", files)
    assert load(str(path)).train.images.shape == (6, 3, 64, 64)
    assert load(str(path), side=4).test.images.shape == (4, 3, 4, 4)
    wide = Image.fromarray(np.repeat(np.arange(12, dtype=np.uint8)[None], 4, 0))
    # the middle four of twelve columns
    assert np.asarray(image_files.square(wide, 4))[0].tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"train/ant/0.png": b"no image"},
            r"train/ant/0\.png in .*a(\.zip)? cannot be read: it is not an image of JPEG, PNG",
        ),
        ({"train/ant/0.png": image_file(0)[:45]}, r"train/ant/0\.png in .* cannot be read"),
        ({"train/cat/x.txt": b""}, "class folder train/cat has no images"),
        ({"train/cat/x.png": image_file(0)}, r"class cat is in one of train/ and test/ only"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(
    tmp_path: Path, change: dict[str, bytes], message: str
) -> None:
    for path in (
        folder(tmp_path / "a", tree() | change),
        archive(tmp_path / "a.zip", tree() | change),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            load(str(path))
        assert "\n" not in str(caught.value)
        assert "BytesIO" not in str(caught.value)


def test_half_a_folder_is_refused(tmp_path: Path) -> None:
    def some(kind: str) -> Path:
        files = {name: data for name, data in tree().items() if name.startswith(kind)}
        return folder(tmp_path / kind, files)

    for kind, message in (
        ("train", r"neither test/ nor val/ beside it"),
        ("test", "no train/ with a folder per class"),
        ("train/ant", "neither test/ nor val/|holds 1 class folders"),
        ("nothing", "holds 0 class folders, at least 2"),
    ):
        path = some(kind)
        path.mkdir(exist_ok=True)
        with pytest.raises(ValueError, match=message):
            load(str(path))
    (tmp_path / "empty").mkdir()
    files = folder(tmp_path / "empty", tree())
    (files / "train" / "cat").mkdir()
    with pytest.raises(ValueError, match="class folder train/cat has no images"):
        load(str(files))


@pytest.mark.parametrize(
    ("train", "test"), [("Train", "Test"), ("training", "validation"), ("TRAIN", "valid")]
)
def test_parts_with_other_names_are_no_classes(tmp_path: Path, train: str, test: str) -> None:
    shown = sorted([f"{train}/", f"{test}/"])
    renamed = {"train": train, "test": test}
    files = {}
    for name, content in tree(train=8, test=8).items():
        top, _, rest = name.partition("/")
        files[f"{renamed[top]}/{rest}"] = content
    with pytest.raises(
        ValueError, match=f"{' and '.join(shown)} look like parts.*rename"
    ) as caught:
        load(str(folder(tmp_path / "a", files)))
    assert "\n" not in str(caught.value)


def test_one_class_may_be_called_like_a_part(tmp_path: Path) -> None:
    files = {f"{name}/{k}.png": image_file(k) for name in ("Bus", "Train") for k in range(10)}
    assert load(str(folder(tmp_path / "a", files))).classes == ("Bus", "Train")


def test_where_both_are_there_val_is_not_used(tmp_path: Path) -> None:
    files = tree()
    held = {
        name.replace("test/", "val/"): image_file(200) for name in files if name.startswith("test/")
    }
    data = load(str(folder(tmp_path / "a", files | held)))
    assert values(data.test) == [10, 11, 110, 111]
    only = {name: content for name, content in (files | held).items() if "test/" not in name}
    assert values(load(str(folder(tmp_path / "b", only))).test) == [200] * 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "digits(trian=12)",
            "digits(trian=12) has an unknown option 'trian': did you mean 'train'?",
        ),
        ("a/three(tset=3)", "unknown option 'tset': did you mean 'test'?"),
        ("digits(size=8)", "unknown option 'size': "),
    ],
)
def test_names_that_cannot_be_meant_say_what_is_wrong(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load(name)
    assert "\n" not in str(caught.value)


def link() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("train/ant/link.png")
    entry.external_attr = 0o120777 << 16
    return entry


@pytest.mark.parametrize(
    ("entry", "data", "message"),
    [
        ("../outside.png", b"", "leads out of the archive"),
        ("/etc/outside.png", b"", "leads out of the archive"),
        ("train\\..\\outside.png", b"", "leads out of the archive"),
        (link(), b"/etc/passwd", "is a link"),
        ("train/ant/bomb.png", bytes((1 << 26) + 1), "unpacks to 67108865 bytes"),
    ],
)
def test_hostile_archives_are_refused(
    tmp_path: Path, entry: str | zipfile.ZipInfo, data: bytes, message: str
) -> None:
    path = archive(tmp_path / "a.zip", tree())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr(entry, data)
    with pytest.raises(ValueError, match=message):
        load(str(path))


def test_archives_larger_than_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(tmp_path / "a.zip", tree())
    monkeypatch.setattr(image_files, "LARGEST_WHOLE", 500)
    with pytest.raises(ValueError, match="refused: it unpacks to"):
        load(str(path))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="is not a zip archive"):
        load(str(path))


def test_images_with_too_many_pixels_are_refused(tmp_path: Path) -> None:
    # the header of a small file claims 20,000 x 20,000 pixels
    data = bytearray(image_file(0))
    header = data[12:16] + struct.pack(">II", 20_000, 20_000) + data[24:29]
    data[12:33] = header + struct.pack(">I", zlib.crc32(header))
    path = folder(tmp_path / "a", tree() | {"train/ant/0.png": bytes(data)})
    with pytest.raises(ValueError, match=r"0\.png in .* cannot be read: .*pixels"):
        load(str(path))


def test_images_with_more_than_8_bits_are_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((6, 6), 60_000, np.uint16)).save(file, "PNG")
    path = folder(tmp_path / "a", tree() | {"train/ant/0.png": file.getvalue()})
    with pytest.raises(ValueError, match="more than 8 bits per channel"):
        load(str(path))


def test_the_second_load_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "a.zip", tree())
    first = load(str(path))

    def fail(*_: object) -> None:
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(image_files.Files, "decode", fail)
        second = load(str(path))
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.test.labels, second.test.labels)
    assert torch.equal(first.mean, second.mean)
    assert (first.digest, first.classes) == (second.digest, second.classes)
    # another file under the same name is read anew, and so is a damaged copy
    archive(path, tree(train=4))
    assert len(load(str(path)).train) == 8
    kept = list((Path(os.environ["XDG_CACHE_HOME"]) / "bench" / "decoded").iterdir())
    assert len(kept) == 1
    kept[0].write_bytes(b"damaged")
    assert len(load(str(path)).train) == 8


def test_a_decoded_copy_with_flipped_bits_is_made_anew(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", tree())
    first = load(str(path))
    (copy,) = (Path(os.environ["XDG_CACHE_HOME"]) / "bench" / "decoded").iterdir()
    whole = copy.read_bytes()
    size = 8 + struct.unpack("<Q", whole[:8])[0]
    # a pixel, a label and the last byte; then the names of the classes, in the header
    for place in (size, size + 700, len(whole) - 1, whole.index(b"ant")):
        harmed = bytearray(copy.read_bytes())
        harmed[place] ^= 1
        copy.write_bytes(harmed)
        again = load(str(path))
        assert again.classes == first.classes
        assert again.digest == first.digest
        for one, other in ((again.train, first.train), (again.test, first.test)):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.labels, other.labels)
        assert torch.equal(again.mean, first.mean)
        # and the copy is whole again
        assert sorted(copy.read_bytes()[size:]) == sorted(whole[size:])


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(load(str(folder(tmp_path / "a", tree()))).train) == 6
