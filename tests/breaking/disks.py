"""Disks that are full, read-only or damaged, clocks that run backwards, folders that are moved."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from breaking.commands import CASES, POINTS, RUN, Case
from breaking.truth import Count, Undisturbed, bench, content, finish, weights

BACKWARDS = """
import runpy, sys, time
true, start = time.time, time.monotonic()
# an hour back for every second that passes
time.time = lambda: true() - 3600 * (time.monotonic() - start)
runpy.run_module("bench", run_name="__main__")
"""


def full_disk(truth: Undisturbed, root: Path) -> Count | None:
    """The disk fills while anything is written; then there is room again."""
    count = Count()
    for size in ("100k", "200k", "400k", "700k", "1500k"):
        for arguments in (RUN, POINTS):
            folder = root / f"full-{size}-{arguments[0]}"
            if not mounted(folder, f"size={size}"):
                return None
            try:
                code, stderr = finish(bench(folder, *arguments))
                if code == 0:
                    continue  # it had room enough
                clear = code == 3 and "no space left on the disk" in stderr
                subprocess.run(["mount", "-o", "remount,size=100m", str(folder)], check=True)
                again, _ = finish(bench(folder, *arguments))
                count.note(clear and again == 0 and truth.is_whole(folder, arguments))
            finally:
                subprocess.run(["umount", str(folder)], check=True)
    return count


def damaged(truth: Undisturbed, root: Path) -> Count:
    """A record line, a checkpoint, a block of points and weights are cut or have a bit flipped."""
    count = Count()
    for harm in ("cut", "flip"):
        folder = root / f"damaged-{harm}"
        assert finish(bench(folder, *RUN))[0] == 0
        spoil(folder / "records.jsonl", harm)
        code, stderr = finish(bench(folder, *RUN))
        lines = (folder / "records.jsonl").read_text(errors="replace").splitlines()
        found = {}
        for line in lines:
            try:
                record = json.loads(line)
                found[record["seed"]] = record["accuracy"]
            except (ValueError, KeyError):
                continue
        right = {int(name[-1]): value["accuracy"] for name, value in truth.results.items()}
        count.note(code == 0 and found == right and weights(folder) == truth.weights)
        for kind, pattern in ((RUN, "checkpoints/*/epoch-*"), (POINTS, "points/*/block-*")):
            place = root / f"damaged-{harm}-{kind[0]}"
            while True:
                process = bench(place, *kind)
                while process.poll() is None and not list((place / "cache").glob(pattern)):
                    time.sleep(0.01)
                process.kill()
                finish(process)
                found_files = list((place / "cache").glob(pattern))
                if found_files:
                    break
                shutil.rmtree(place)  # it was finished before it could be killed
            spoil(found_files[0], harm)
            code, _ = finish(bench(place, *kind))
            count.note(code == 0 and truth.is_whole(place, kind))
        # the weights of a finished run: whoever needs them says so, and they can be made anew
        for path in (folder / "weights").glob("*.safetensors"):
            spoil(path, harm)
        code, stderr = finish(bench(folder, "occlusion"))
        told = "--fresh" in stderr and "Traceback" not in stderr
        again, _ = finish(bench(folder, *RUN, "--fresh"))
        count.note(code == 3 and told and again == 0 and weights(folder) == truth.weights)
        # those of the victim, which is trained again
        place = root / f"damaged-{harm}-points"
        spoil(next((place / "cache/victims").glob("*.safetensors")), harm)
        shutil.rmtree(place / "points")
        code, stderr = finish(bench(place, *POINTS))
        count.note(code == 0 and "trained again" in stderr and truth.is_whole(place, POINTS))
    return count


def spoil(path: Path, harm: str) -> None:
    """Cut a file short, or flip one bit in its middle."""
    content = bytearray(path.read_bytes())
    if harm == "cut":
        content = content[:-20]
    else:
        content[len(content) // 2] ^= 4
    path.write_bytes(content)


def mounted(folder: Path, options: str) -> bool:
    """Mount an empty file system of its own; only root may."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(mount, capture_output=True).returncode == 0


def read_only(truth: Undisturbed, root: Path) -> Count:
    """A results folder that cannot be written: a file in its way, a disk that is read-only."""
    count = Count()
    (root / "file").write_text("")
    said = "cannot write to the results folder"
    code, stderr = finish(bench(root / "file" / "results", *RUN))
    count.note(code == 2 and said in stderr)
    folder = root / "read-only"
    if not mounted(folder, "size=100m"):
        return count
    try:
        for before in (False, True):  # empty, then with something half done in it
            if before:
                process = bench(folder, *RUN)
                while process.poll() is None and not list((folder / "cache").glob("checkpoints/*")):
                    time.sleep(0.01)
                process.kill()
                finish(process)
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
            code, stderr = finish(bench(folder, *RUN))
            subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
            count.note(code == 2 and said in stderr and "Traceback" not in stderr)
        # it turns read-only under a run, as a disk with errors does
        process = bench(folder, *RUN)
        while process.poll() is None and not list((folder / "cache").glob("checkpoints/*/*.json")):
            time.sleep(0.01)
        turned = subprocess.run(["mount", "-o", "remount,ro", str(folder)], capture_output=True)
        code, stderr = finish(process)
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
        again, _ = finish(bench(folder, *RUN))
        clear = "Traceback" not in stderr and (code == 2 or turned.returncode != 0)
        count.note(clear and again == 0 and truth.is_whole(folder, RUN))
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    return count


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[bool]:
    """Mount an empty file system while something is tried; False: only root may."""
    able = mounted(folder, options)
    try:
        yield able
    finally:
        if able:
            subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def remount(folder: Path, options: str) -> None:
    """Change a mounted file system."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def used(folder: Path) -> int:
    """The bytes of the pages that hold a folder, as a file system in memory counts them."""
    sizes = [path.lstat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(-(-size // 4096) * 4096 for size in sizes)


def each_on_full_disk(truth: Undisturbed, root: Path) -> Count | None:
    """Half of what each other command writes fits; then there is room again."""
    count = Count()
    for case in CASES:
        if case.thorough:
            continue
        place = root / "full"
        if case.begin is None and not truth.of(case):
            continue  # it writes nothing
        truth.begin(case, place)
        before = used(place)
        assert finish(bench(place, *case.words))[0] == 0
        after = used(place)
        shutil.rmtree(place, ignore_errors=True)
        if after <= before:
            continue  # it writes nothing
        with small_disk(place, "size=100m") as able:
            if not able:
                return None
            truth.begin(case, place)
            remount(place, f"size={before + (after - before) // 2}")
            code, stderr = finish(bench(place, *case.words))
            remount(place, "size=100m")
            wrong = truth.completes(case, place)
            # an exit of 0 is right where what did not fit can be done without, as a tracker
            told = code == 0 or (code == 3 and "no space left on the disk" in stderr)
            note(count, case, not wrong and told, f"{code}\n{stderr}\n{wrong}")
    return count


def each_on_read_only_disk(truth: Undisturbed, root: Path) -> Count | None:
    """Each command on a disk that cannot be written: it reads, or says so, and changes nothing."""
    count = Count()
    for case in CASES:
        with small_disk(root / "each-read-only", "size=100m") as able:
            if not able:
                return None
            truth.begin(case, root / "each-read-only")
            before = content(root / "each-read-only")
            remount(root / "each-read-only", "ro")
            code, stderr = finish(bench(root / "each-read-only", *case.words))
            remount(root / "each-read-only", "rw")
            told = code == 0 or (code == 2 and len(stderr.strip().splitlines()) >= 1)
            same = content(root / "each-read-only") == before
            good = told and same and "Traceback" not in stderr
            wrong = truth.completes(case, root / "each-read-only")
            note(count, case, good and not wrong, f"{code}, {same}\n{stderr}\n{wrong}")
    return count


def each_on_damaged_folder(truth: Undisturbed, root: Path) -> Count:
    """A cut record line, and a bit flipped in every other file: no traceback, no record lost."""
    count = Count()
    for case in CASES:
        if case.begin is None:
            continue
        place = root / "damaged"
        truth.begin(case, place)
        lines = place / "records.jsonl"
        before = lines.read_bytes().splitlines() if lines.exists() else []
        for path in place.rglob("*"):
            if path.is_file() and path.stat().st_size and path != lines:
                spoil(path, "flip")
        with lines.open("ab") as file:
            file.write(b'{"kind": "run", "key"')
        code, stderr = finish(bench(place, *case.words))
        kept = set(before) <= set(lines.read_bytes().splitlines())
        good = code in (0, 2, 3, 4) and kept and "Traceback" not in stderr
        note(count, case, good, f"{code}, {kept}\n{stderr}")
        shutil.rmtree(place)
    return count


def note(count: Count, case: Case, good: bool, said: str) -> None:
    """Count what was tried on a command, and show what was lost."""
    count.note(good)
    if not good:
        print(f"  lost: {case.title}: {said}", flush=True)


def clock_set_back(truth: Undisturbed, root: Path) -> Count:
    """The clock runs backwards, in an undisturbed run and in one that is killed and goes on."""
    count = Count()
    for turn in range(2):
        folder = root / f"clock-{turn}"
        process = bench(folder, *RUN, start=("-c", BACKWARDS))
        if turn:
            time.sleep(0.7 * truth.seconds["run"])
            process.kill()
            finish(process)
            process = bench(folder, *RUN, start=("-c", BACKWARDS))
        code, stderr = finish(process)
        count.note(code == 0 and "tracker" not in stderr and truth.is_whole(folder, RUN))
    return count


def diverged(truth: Undisturbed, root: Path) -> Count:
    """A loss that is no number is a reported failure, and not a hole."""
    count = Count()
    folder = root / "diverged"
    code, _ = finish(bench(folder, *RUN, "--learning-rate", "1e30"))
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    count.note(code == 3 and [line["status"] for line in lines] == ["failed"] * 2)
    return count


def moved(truth: Undisturbed, root: Path) -> Count:
    """A results folder copied elsewhere gives the same tables, and the tracker can be rebuilt."""
    count = Count()
    shutil.copytree(truth.beginning("run"), root / "there")
    table = bench(root / "there", "tables", "--format", "csv")
    assert finish(table)[0] == 0
    # the next command takes the artifacts along
    code, _ = finish(bench(root / "there", *RUN))
    count.note(code == 0 and truth.is_whole(root / "there", RUN))
    code, _ = finish(bench(root / "there", "track", "rebuild"))
    count.note(code == 0 and truth.is_whole(root / "there", RUN))
    return count
