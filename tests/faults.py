"""Break things while the bench works, and count what survives: ``nox -s faults``.

Each scenario tries something several times and says how often every finished result was there
afterwards exactly once and equal to that of an undisturbed run. Nothing here is collected by
pytest: it takes minutes and kills processes.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RUN = ["run", "--aug", "cutout", "--model", "resnet8", "--seeds", "2", "--epochs", "3"]
RUN += ["--data", "digits(train=300)", "--threads", "1"]
POINTS = ["points", "build", "--attack", "sigma-zero(steps=30, eps=0.5)", "--threads", "1"]
TIMES = 20


@dataclass
class Count:
    """How often something was tried, and how often everything was there afterwards."""

    tried: int = 0
    survived: int = 0

    def note(self, good: bool) -> None:
        self.tried += 1
        self.survived += good


def bench(folder: Path, *arguments: str, tracked: bool = False) -> subprocess.Popen[str]:
    """Start a command on a results folder of its own."""
    extra = [] if tracked or arguments[0] != "run" else ["--no-tracking"]
    return subprocess.Popen(
        [sys.executable, "-m", "bench", *arguments, *extra, "--results", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait; the exit code and what was said on stderr."""
    _, stderr = process.communicate(timeout=600)
    return process.returncode, stderr


def results(folder: Path) -> dict[str, dict[str, float]]:
    """What the records say, without times; fails for a record that is there twice."""
    found = {}
    for line in (folder / "records.jsonl").read_text().splitlines():
        record = json.loads(line)
        name = f"{record['key']}-{record['seed']}"
        assert name not in found, f"{name} is there twice"
        found[name] = {k: v for k, v in record.items() if k.startswith("accuracy")}
    return found


def weights(folder: Path) -> dict[str, bytes]:
    """The final weights by name."""
    return {path.name: tensors(path) for path in (folder / "weights").glob("*.safetensors")}


def points(folder: Path) -> bytes:
    """The points that were found."""
    (path,) = (folder / "points").glob("*.safetensors")
    return tensors(path)


def tensors(path: Path) -> bytes:
    """The values of a safetensors file, without the header, whose entries come in any order."""
    content = path.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


class Undisturbed:
    """What comes out when nothing happens, and how long it takes."""

    def __init__(self, folder: Path) -> None:
        start = time.monotonic()
        assert finish(bench(folder, *RUN))[0] == 0
        self.run_seconds = time.monotonic() - start
        start = time.monotonic()
        assert finish(bench(folder, *POINTS))[0] == 0
        self.points_seconds = time.monotonic() - start
        self.results, self.weights, self.points = results(folder), weights(folder), points(folder)

    def is_whole(self, folder: Path, arguments: list[str]) -> bool:
        """Whether a command has left there what it should."""
        return self.run_is_whole(folder) if arguments is RUN else points(folder) == self.points

    def run_is_whole(self, folder: Path) -> bool:
        return results(folder) == self.results and weights(folder) == self.weights


def killed(
    truth: Undisturbed, root: Path, arguments: list[str], seconds: float, how: signal.Signals
) -> Count:
    """Send a signal at random moments; the same command must then complete the same results."""
    count = Count()
    chance = random.Random(0)
    for turn in range(TIMES):
        folder = root / f"{how.name}-{arguments[0]}-{turn}"
        process = bench(folder, *arguments)
        time.sleep(chance.uniform(0.3, 1.0) * seconds)
        process.send_signal(how)
        finish(process)
        code, stderr = finish(bench(folder, *arguments))
        count.note(code == 0 and truth.is_whole(folder, arguments) and "Traceback" not in stderr)
        shutil.rmtree(folder)
    return count


def twice(truth: Undisturbed, root: Path) -> Count:
    """Two equal commands on one folder: nothing is run twice."""
    count = Count()
    for turn in range(3):
        folder = root / f"twice-{turn}"
        both = [bench(folder, *RUN) for _ in range(2)]
        codes = [finish(process)[0] for process in both]
        count.note(codes == [0, 0] and truth.run_is_whole(folder))
    return count


def four_on_nothing(truth: Undisturbed, root: Path) -> Count:
    """Four tracked commands with a seed each start on a folder that is not there."""
    count = Count()
    seeds = ["--seed-list", "0", "--seed-list", "1", "--seed-list", "2", "--seed-list", "3"]
    for turn in range(2):
        folder = root / f"four-{turn}"
        processes = [bench(folder, *RUN, *seeds[2 * i : 2 * i + 2], tracked=True) for i in range(4)]
        ends = [finish(process) for process in processes]
        quiet = all(code == 0 and "tracker" not in stderr for code, stderr in ends)
        found = results(folder)
        same = all(found[name] == value for name, value in truth.results.items())
        count.note(quiet and len(found) == 4 and same)
    return count


def full_disk(truth: Undisturbed, root: Path) -> Count | None:
    """The disk fills while anything is written; then there is room again."""
    count = Count()
    for size in ("100k", "200k", "400k", "700k", "1500k"):
        for arguments in (RUN, POINTS):
            folder = root / f"full-{size}-{arguments[0]}"
            folder.mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
            if subprocess.run(mount, capture_output=True).returncode:
                return None  # only root may mount
            try:
                code, stderr = finish(bench(folder, *arguments))
                if code == 0:
                    continue  # it had room enough
                clear = code == 2 and "no space left on the disk" in stderr
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
        victim = next((root / f"damaged-{harm}-points/cache/victims").glob("*.safetensors"))
        victim.write_bytes(victim.read_bytes()[:100])
        shutil.rmtree(root / f"damaged-{harm}-points/points")
        code, stderr = finish(bench(root / f"damaged-{harm}-points", *POINTS))
        count.note("Traceback" not in stderr and code in (0, 2))
    return count


def spoil(path: Path, harm: str) -> None:
    """Cut a file short, or flip one bit in its middle."""
    content = bytearray(path.read_bytes())
    if harm == "cut":
        content = content[:-20]
    else:
        content[len(content) // 2] ^= 4
    path.write_bytes(content)


def deaf_tracker(truth: Undisturbed, root: Path) -> Count:
    """A tracking server that refuses, and one that takes the connection and never answers."""
    count = Count()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        threading.Thread(target=lambda: server.listen(), daemon=True).start()
        for name, address in (("refuses", "127.0.0.1:9"), ("deaf", f"127.0.0.1:{port}")):
            folder = root / f"tracker-{name}"
            uri = f"http://user:secret@{address}"
            code, stderr = finish(bench(folder, *RUN, "--tracking-uri", uri, tracked=True))
            told = "tracker" in stderr and "secret" not in stderr
            count.note(code == 0 and told and truth.run_is_whole(folder))
    return count


def read_only(truth: Undisturbed, root: Path) -> Count:
    """A results folder that cannot be written: a file is in its way."""
    count = Count()
    (root / "file").write_text("")
    code, stderr = finish(bench(root / "file" / "results", *RUN))
    count.note(code == 2 and "cannot write to the results folder" in stderr)
    return count


def diverged(truth: Undisturbed, root: Path) -> Count:
    """A loss that is no number is a reported failure, and not a hole."""
    count = Count()
    folder = root / "diverged"
    code, _ = finish(bench(folder, *RUN, "--learning-rate", "1e30"))
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    count.note(code == 3 and [line["status"] for line in lines] == ["failed"] * 2)
    return count


def memory(truth: Undisturbed, root: Path) -> Count:
    """Workers of a parallel run are killed, as the system does when memory runs out."""
    count = Count()
    for turn in range(3):
        folder = root / f"memory-{turn}"
        process = bench(folder, *RUN, "--executor", "processes", "--jobs", "2")
        time.sleep((0.6 + 0.3 * turn) * truth.run_seconds)
        children = subprocess.run(
            ["pgrep", "-P", str(process.pid), "-f", "spawn_main"], capture_output=True, text=True
        ).stdout.split()
        for child in children[:1]:
            os.kill(int(child), signal.SIGKILL)
        code, _ = finish(process)
        if code:
            code, _ = finish(bench(folder, *RUN))
        # two jobs at a time have other numbers of threads than one: with one core each they agree
        count.note(code == 0 and results(folder) == truth.results)
    return count


def moved(truth: Undisturbed, root: Path) -> Count:
    """A results folder copied elsewhere gives the same tables, and the tracker can be rebuilt."""
    count = Count()
    assert finish(bench(root / "here", *RUN))[0] == 0
    shutil.copytree(root / "here", root / "there")
    shutil.rmtree(root / "here")
    table = bench(root / "there", "tables", "--format", "csv")
    assert finish(table)[0] == 0
    code, _ = finish(bench(root / "there", "track", "rebuild"))
    count.note(code == 0 and (root / "there/mlflow.db").exists())
    return count


def main() -> int:
    """Run every scenario and print the table; 1 when anything was lost."""
    lost = 0
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        truth = Undisturbed(root / "undisturbed")
        scenarios: dict[str, Callable[[], Count | None]] = {
            "SIGKILL during a run": lambda: killed(
                truth, root, RUN, truth.run_seconds, signal.SIGKILL
            ),
            "SIGTERM during a run": lambda: killed(
                truth, root, RUN, truth.run_seconds, signal.SIGTERM
            ),
            "SIGKILL during points build": lambda: killed(
                truth, root, POINTS, truth.points_seconds, signal.SIGKILL
            ),
            "SIGTERM during points build": lambda: killed(
                truth, root, POINTS, truth.points_seconds, signal.SIGTERM
            ),
            "two equal commands at once": lambda: twice(truth, root),
            "four on an empty folder": lambda: four_on_nothing(truth, root),
            "disk full": lambda: full_disk(truth, root),
            "damaged files": lambda: damaged(truth, root),
            "tracker refuses or is deaf": lambda: deaf_tracker(truth, root),
            "results not writable": lambda: read_only(truth, root),
            "diverged seeds": lambda: diverged(truth, root),
            "a worker killed": lambda: memory(truth, root),
            "folder moved": lambda: moved(truth, root),
        }
        wanted = sys.argv[1:]
        print(f"{'fault':32} tried survived  lost", flush=True)
        for title, scenario in scenarios.items():
            if wanted and not any(word in title for word in wanted):
                continue
            count = scenario()
            if count is None:
                print(f"{title:32} cannot be tried here", flush=True)
                continue
            lost += count.tried - count.survived
            print(
                f"{title:32} {count.tried:5} {count.survived:8} {count.tried - count.survived:5}",
                flush=True,
            )
    return int(lost > 0)


if __name__ == "__main__":
    raise SystemExit(main())
