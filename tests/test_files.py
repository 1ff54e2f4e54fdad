"""Files on disk: written whole or not at all, with checksums that hold for ever."""

import base64
import hashlib
import json
import os
import zlib
from pathlib import Path

import pytest
import torch

from bench.errors import exit_code
from bench.files import atomic, checksums, tensor_files
from bench.records.record import Record
from bench.records.store import Store
from bench.robustness import batches

OLD_BLOCK = (
    rb"c-oawQES5>5bid{_A`plQq)9~_F;S4V1HmQO$nE%UE8D<wHu`b_S2_H7#(}+3Eq8o-*<XCy`A)SMrGM54-!0-C0d"
    rb"-()>LSL&IN+X9DRWn(-3>Rfo6=sd#HC26lm*OC{Tw(=#-K%Ng`OAflm68H)c1AovO`Vx`^nE$KnB;+w9jpdzSU7R"
    rb"<*{SVrGAAnwU}68tcX$d^r0ZnxlG&g}^i67F~xhav#9B2one*=2GQZn$0Pv8PQZ|trMC`LU;|jp0j{x#b^>Nu!T+"
    rb"uP?a)5a>aF+3RPjyFR;?ZhmrntP@(agNQZMGTCx>J{o@&}o$`UXB$$d-P-|na7gK=~7S)?8g$cuH9)%!3m30t*?6"
    rb"SdY!Y&(N8rT0eX^wfgeK#HKX7bk_M*leayV2kOGQOX}_WT3LgQb)"
)
"""An attacked block of two images, as version 0.1 wrote it."""


def test_a_block_of_attacked_images_of_version_0_1_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "block.safetensors"
    path.write_bytes(zlib.decompress(base64.b85decode(OLD_BLOCK)))
    about = {"trial": {"attack": "jsma"}, "seed": 0, "goal": 0}
    ids = torch.tensor([3, 5])
    found = batches.load(path, about, ids)
    assert found is not None
    assert found.adversarial.flatten().tolist() == [0.25, 0.5]
    assert (found.forwards.tolist(), found.backwards.tolist()) == ([7, 8], [1, 0])
    assert (found.seconds, found.passing, found.memory) == (1.5, 0.75, None)
    assert found.errors == {5: "ValueError: no"}
    # and what is written today is the same, checksum included
    batches.save(found, tmp_path / "again", about)
    headers = [tensor_files.read(each, "job")[1] for each in (path, tmp_path / "again")]
    assert headers[0] == headers[1]
    assert batches.load(path, about | {"seed": 1}, ids) is None


def test_every_flipped_bit_of_tensors_and_covered_text_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    content = tensor_files.pack({"a": torch.arange(4).byte()}, {"about": "text"}, covered="about")
    path.write_bytes(content)
    assert tensor_files.read(path, covered="about")[0]["a"].tolist() == [0, 1, 2, 3]
    for place in (content.index(b"text"), len(content) - 1, len(content) - 4):
        harmed = bytearray(content)
        harmed[place] ^= 1
        path.write_bytes(harmed)
        with pytest.raises(ValueError, match=r"file\.safetensors is damaged: its checksum differs"):
            tensor_files.read(path, covered="about")


def test_a_file_of_another_program_is_read_unless_a_checksum_is_required(tmp_path: Path) -> None:
    from safetensors.torch import save

    path = tmp_path / "file.safetensors"
    path.write_bytes(save({"a": torch.ones(1)}, {"about": "text"}))
    assert tensor_files.read(path)[0]["a"].tolist() == [1.0]
    with pytest.raises(ValueError, match="has no about with a checksum"):
        tensor_files.read(path, covered="about")


def test_checksums_are_plain_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    expected = hashlib.sha256(b"abc").hexdigest()
    assert checksums.of_file(tmp_path / "file") == checksums.of_bytes(b"abc") == expected
    tensor = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8)
    assert checksums.of_tensors({"b": tensor.T, "a": tensor}, "t") == checksums.of_bytes(
        b"t" + b"a\1\2\3\4" + b"b\1\3\2\4"
    )
    assert checksums.of_arrays([tensor]) == checksums.of_bytes(b"[2, 2]\1\2\3\4")
    job = {"b": 1, "a": [2.5, None]}
    assert checksums.key(job) == checksums.of_bytes(b'{"a":[2.5,null],"b":1}')[:12]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "file.json"
    atomic.write(path, json.dumps(1))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        atomic.write(path, json.dumps(2))
    assert caught.value.filename == str(path)
    assert [each.read_text() for each in path.parent.iterdir()] == ["1"]


def test_a_file_that_cannot_be_written_is_named_and_not_its_neighbour(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.mkdir()
    with pytest.raises(OSError, match="directory") as caught:
        atomic.write(path, "")
    assert caught.value.filename == str(path)


def test_a_record_that_finds_no_room_names_the_file_of_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    labels = {"augmentation": "none", "model": "resnet8", "data": "digits"}
    with pytest.raises(OSError, match="No space left") as caught:
        Store(tmp_path).add(Record(kind="run", key="k", seed=0, labels=labels, metrics={}, job={}))
    assert caught.value.filename == str(tmp_path / "records.jsonl")
    assert exit_code(caught.value) == 3
    assert Store(tmp_path).all() == []


def test_a_written_file_has_the_permissions_that_the_user_asks_for(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic.write(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_full_disk_is_told_as_one_whoever_notices_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch
    from filelock import FileLock
    from safetensors import SafetensorError

    from bench.errors import one_line
    from bench.execution.progress import Silent
    from bench.execution.workspace import Workspace
    from bench.records.tracking.tracker import Tracker, _guarded
    from bench.robustness import occlusion

    def full(*args: object, **fields: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    told = f"no space left on the disk of {tmp_path / 'x'}: free some or choose another --results"
    with pytest.raises(OSError, match="No space left") as caught:
        tensor_files.write(tmp_path / "x", {"a": torch.zeros(2)}, {})
    assert one_line(caught.value) == told
    assert list(tmp_path.iterdir()) == []

    def evaluate(*args: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "x"))

    monkeypatch.setattr(occlusion, "evaluate", evaluate)
    monkeypatch.setattr(Workspace, "dataset", lambda self, name: None)
    run = Record(kind="run", key="k", seed=0, labels={}, metrics={}, job={})
    with pytest.raises(OSError, match="No space left") as caught:
        occlusion.evaluate_runs([run], Workspace(results=tmp_path), Silent())
    assert one_line(caught.value) == told

    def log(self: Tracker) -> None:
        raise RuntimeError("(sqlite3.OperationalError) database or disk is full")

    tracker = object.__new__(Tracker)
    tracker.on, tracker.strict, tracker.uri = True, True, "sqlite:///a.db"
    tracker.lock = FileLock(tmp_path / "lock")
    with pytest.raises(OSError, match="No space left"):
        _guarded(log)(tracker)
