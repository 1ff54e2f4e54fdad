"""Break things while the bench works, and count what survives: ``nox -s faults``.

Each scenario tries something several times and says how often every finished result was there
afterwards exactly once and equal to that of an undisturbed run, the tracker included. Nothing here
is collected by pytest: it takes an hour and kills processes. The table is written to
``results/faults`` after each scenario, and a run that was stopped goes on where it was.

    nox -s faults                     three random moments and one call of each kind a command
    nox -s faults -- --times 20       more random moments
    nox -s faults -- --calls 0        every system call that changes the disk; takes days
    nox -s faults -- tracker clock    the scenarios with one of these words in their title
"""

from __future__ import annotations

import argparse
import functools
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
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import killed
from tracked import differences

RUN = ["run", "--aug", "cutout", "--model", "resnet8", "--seeds", "2", "--epochs", "3"]
RUN += ["--data", "digits(train=300)", "--threads", "1"]
POINTS = ["points", "build", "--attack", "sigma-zero(steps=30, eps=0.5)", "--threads", "1"]
ATTACKS = ["attack-eval", "--data", "digits", "--eps", "0.5", "--images", "150", "--threads", "1"]
ATTACKS += ["--attack", "sigma-zero(steps=20)", "--attack", "jsma"]
DIGITS = ["--data", "digits(train=300)", "--threads", "1", "--model", "resnet8"]
OTHERS: dict[str, tuple[list[str] | None, list[str]]] = {
    "track rebuild": (RUN, ["track", "rebuild"]),
    "status --reap": (RUN, ["status", "--reap"]),
    "tables": (RUN, ["tables", "--format", "csv"]),
    "figures": (RUN, ["figures"]),
    "report": (RUN, ["report"]),
    "occlusion": (RUN, ["occlusion", "--threads", "1"]),
    "list": (RUN, ["list", "runs"]),
    "export": (RUN, ["export", "{folder}/supplement.zip"]),
    "plan": (
        RUN,
        ["plan", "--calibrate", "--methods", "1", "--max-seeds", "5", "--studies", "100"],
    ),
    "leaderboard": (ATTACKS, ["leaderboard"]),
    "points export": (POINTS, ["points", "export", "{folder}/points.npz", *POINTS[2:]]),
    "search": (None, ["search", "--aug", "cutout", "--budget", "2", "--seeds", "1", *DIGITS]),
    "train-robust": (None, ["train-robust", "--method", "linf-at", "--epochs", "1", *DIGITS]),
}
"""Other commands, by their title: whose results they begin with, and the command."""
ROOT = Path(__file__).parent.parent
STAGES = [b"experiments/", b"runs/create", b"runs/log-batch", b"record.json", b"stats.json"]
"""What a run asks of its tracker, from its start to the intervals at its end."""
BACKWARDS = """
import runpy, sys, time
true, start = time.time, time.monotonic()
# an hour back for every second that passes
time.time = lambda: true() - 3600 * (time.monotonic() - start)
runpy.run_module("bench", run_name="__main__")
"""


@dataclass
class Count:
    """How often something was tried, and how often everything was there afterwards."""

    tried: int = 0
    survived: int = 0

    def note(self, good: bool) -> None:
        self.tried += 1
        self.survived += good


def bench(folder: Path, *arguments: str, tracked: bool = True, start: tuple[str, ...] = ()) -> Any:
    """Start a command on a results folder of its own; in a new Python where that matters."""
    able = arguments[0] in ("run", "attack-eval")
    extra = ["--no-tracking"] if able and not tracked else []
    if not start and "--executor" not in arguments:
        return killed.Forked([*arguments, *extra, "--results", str(folder)])
    start = start or ("-m", "bench")
    return subprocess.Popen(
        [sys.executable, *start, *arguments, *extra, "--results", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: Any) -> tuple[int, str]:
    """Wait; the exit code and what was said on stderr."""
    _, stderr = process.communicate(timeout=900)
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


def attacked(folder: Path) -> dict[str, dict[str, object]]:
    """What the records say of attacks, without times and memory."""
    found = {}
    for line in (folder / "records.jsonl").read_text().splitlines():
        record = json.loads(line)
        name = f"{record['key']}-{record['seed']}"
        assert name not in found, f"{name} is there twice"
        timed = ("seconds", "memory", "machine", "ratio")
        found[name] = {k: v for k, v in record.items() if not any(word in k for word in timed)}
    return found


def blocks(folder: Path) -> dict[str, int]:
    """The finished blocks of attacked pictures, and when each was written."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.glob("attacks/*/goal-*.safetensors")
    }


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
        self.folder = folder
        self.seconds = {}
        for arguments in (RUN, POINTS, ATTACKS):
            start = time.monotonic()
            code, stderr = finish(bench(self.place(arguments), *arguments))
            assert code == 0, stderr
            self.seconds[arguments[0]] = time.monotonic() - start
        self.results, self.weights = results(self.place(RUN)), weights(self.place(RUN))
        self.points, self.attacked = points(self.place(POINTS)), attacked(self.place(ATTACKS))

    def place(self, arguments: list[str]) -> Path:
        """The folder of a command."""
        return self.folder / arguments[0]

    def is_whole(self, folder: Path, arguments: list[str]) -> bool:
        """Whether a command has left there what it should."""
        if arguments is POINTS:
            return points(folder) == self.points
        if (folder / "mlflow.db").exists() and (lines := differences(folder)):
            print(f"  the tracker differs: {lines}", flush=True)
            return False
        if arguments is ATTACKS:
            return attacked(folder) == self.attacked
        return results(folder) == self.results and weights(folder) == self.weights


def killed_by(
    truth: Undisturbed, root: Path, arguments: list[str], how: signal.Signals, times: int
) -> Count:
    """Send a signal at random moments; the same command must then complete the same results.

    A command that was faster than the signal is started again and not counted.
    """
    count, seconds = Count(), truth.seconds[arguments[0]]
    chance = random.Random(0)
    for turn in range(10 * times):
        folder = root / f"{how.name}-{arguments[0]}-{turn}"
        start = time.monotonic()
        process = bench(folder, *arguments)
        with suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.3, 1.0) * seconds)
        process.send_signal(how)
        code, stderr = finish(process)
        if code:
            kept = blocks(folder)
            again, more = finish(bench(folder, *arguments))
            whole = again == 0 and truth.is_whole(folder, arguments)
            untouched = kept.items() <= blocks(folder).items()
            told = how is signal.SIGKILL or code in (-how, 130)
            good = whole and untouched and told and "Traceback" not in stderr + more
            count.note(good)
            if not good:
                print(
                    f"  lost: {code}, {again}, {whole}, {untouched}\n{stderr}\n{more}", flush=True
                )
        else:
            seconds = min(seconds, time.monotonic() - start)
        shutil.rmtree(folder)
        if count.tried == times:
            break
    return count


def at_calls(
    root: Path,
    arguments: list[str],
    begin: Path | None,
    each: int | None,
    most: int | None = None,
) -> Count | None:
    """Kill a command at system calls that change its folder; the same command then completes it.

    Args:
        root: Where folders are made.
        arguments: The command; ``{folder}`` stands for its folder.
        begin: Folder that the command starts with; None: an empty one.
        each: Number of calls of each kind, evenly from the first to the last; None: all.
        most: Number of calls of all kinds together; None: all.
    """
    if not killed.can_trace():
        return None
    count = Count()
    place = root / "calls" / "results"
    arguments = [word.replace("{folder}", str(place)) for word in arguments]
    command = [*arguments, "--results", str(place)]
    if begin is not None:
        shutil.copytree(begin, place)
    found = killed.calls(command, place)
    right = content(place)
    chosen = [(call, n) for call, all_of in found.items() for n in killed.spread(all_of, each)]
    for call, number in killed.spread(chosen, most):
        shutil.rmtree(place)
        if begin is not None:
            shutil.copytree(begin, place)
        code, _ = finish(killed.killed_at(command, call, number))
        again, stderr = finish(bench(place, *arguments))
        good = again == 0 and content(place) == right and "Traceback" not in stderr
        if code != 0:  # it had as many calls as before
            count.note(good)
        if not good:
            now = content(place)
            wrong = [name for name in right | now if right.get(name) != now.get(name)]
            print(f"  lost at {call} {number}: {code}, {again}, {wrong}\n{stderr}", flush=True)
    shutil.rmtree(place)
    return count


def content(folder: Path) -> dict[str, object]:
    """What a command leaves: its records, weights, points, names of files, and a true tracker."""
    found: dict[str, object] = {
        str(path.relative_to(folder)): tensors(path) if path.suffix == ".safetensors" else None
        for path in folder.rglob("*")
        if path.is_file()
        and path.relative_to(folder).parts[0] not in ("cache", "artifacts")
        and path.suffix != ".lock"
        and not path.name.startswith(".")  # what an ended process had not put into place
    }
    if (folder / "records.jsonl").exists():
        found |= attacked(folder)
    if (folder / "mlflow.db").exists():
        found["tracker"] = differences(folder) or None
    return found


def twice(truth: Undisturbed, root: Path) -> Count:
    """Two equal commands on one folder: nothing is run twice."""
    count = Count()
    for turn in range(3):
        folder = root / f"twice-{turn}"
        both = [bench(folder, *RUN) for _ in range(2)]
        codes = [finish(process)[0] for process in both]
        count.note(codes == [0, 0] and truth.is_whole(folder, RUN))
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
            if not mounted(folder, f"size={size}"):
                return None
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
            count.note(code == 0 and told and truth.is_whole(folder, RUN))
    return count


@contextmanager
def server(folder: Path) -> Iterator[tuple[int, Callable[[], None]]]:
    """A real MLflow server on this machine: its port, and what kills it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder.mkdir()
    store = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--workers", "1"]
    place = ["--host", "127.0.0.1", "--port", str(port), "--artifacts-destination", str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *store, *place],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                    break
            except OSError:
                assert time.monotonic() < deadline, "the server does not start"
                time.sleep(0.2)
        yield port, kill
    finally:
        kill()


class Relay:
    """Passes requests on to a server, each after some seconds, until one with a certain word."""

    def __init__(self, port: int, delay: float = 0.0, last: bytes | None = None) -> None:
        self.port, self.delay, self.last, self.served = port, delay, last, 0
        self.server = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.server.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self.server.accept()
                threading.Thread(target=self.serve, args=(near,), daemon=True).start()

    def serve(self, near: socket.socket) -> None:
        """Pass one connection on; without its answer where the word is in it."""
        with suppress(OSError), near, socket.create_connection(("127.0.0.1", self.port)) as far:
            back = threading.Thread(target=self.copy, args=(far, near), daemon=True)
            back.start()
            while piece := near.recv(1 << 20):
                if self.last is not None and self.last in piece:
                    self.server.shutdown(socket.SHUT_RDWR)  # also wakes who waits for the next
                    return
                if piece.split(b" ")[0] in (b"GET", b"POST", b"PUT", b"PATCH", b"DELETE"):
                    self.served += 1
                    time.sleep(self.delay)
                far.sendall(piece)

    @staticmethod
    def copy(far: socket.socket, near: socket.socket) -> None:
        with suppress(OSError):
            while piece := far.recv(1 << 20):
                near.sendall(piece)
            near.shutdown(socket.SHUT_RDWR)


def dying_tracker(truth: Undisturbed, root: Path) -> Count:
    """A real server is killed while a run logs to it, and connections end at each stage."""
    count = Count()

    def tried(folder: Path, process: subprocess.Popen[str], warnings: int = 1) -> None:
        code, stderr = finish(process)
        told = stderr.count("the tracker ") == warnings and "Traceback" not in stderr
        count.note(code == 0 and told and truth.is_whole(folder, RUN))

    with server(root / "server") as (port, kill):
        uri = f"http://127.0.0.1:{port}"
        for stage in STAGES:
            folder = root / f"tracker-dies-{stage.decode()}".replace("/", "-")
            relay = Relay(port, last=stage)
            tried(folder, bench(folder, *RUN, "--tracking-uri", relay.address, tracked=True))
        folder = root / "tracker-lives"
        tried(folder, bench(folder, *RUN, "--tracking-uri", uri, tracked=True), 0)
        folder = root / "tracker-killed"
        process = bench(folder, *RUN, "--tracking-uri", uri, tracked=True)
        while process.poll() is None and not list((folder / "cache").glob("checkpoints/*/*")):
            time.sleep(0.01)
        kill()
        tried(folder, process)
    return count


def slow_tracker(truth: Undisturbed, root: Path) -> Count:
    """A server that takes its time: less than the patience costs that time, more one warning."""
    count = Count()
    with server(root / "slow-server") as (port, _):
        for delay, warnings in ((0.2, 0), (9.0, 1)):
            folder = root / f"tracker-slow-{delay}"
            relay = Relay(port, delay)
            start = time.monotonic()
            process = bench(folder, *RUN, "--tracking-uri", relay.address, tracked=True)
            code, stderr = finish(process)
            taken = time.monotonic() - start - truth.seconds["run"]
            print(f"  {delay} s an answer, {relay.served} requests: {taken:.0f} s more", flush=True)
            told = stderr.count("the tracker ") == warnings
            count.note(code == 0 and told and taken < 120 and truth.is_whole(folder, RUN))
    return count


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


def clock_set_back(truth: Undisturbed, root: Path) -> Count:
    """The clock runs backwards, in an undisturbed run and in one that is killed and goes on."""
    count = Count()
    for turn, tracked in enumerate((False, True)):
        folder = root / f"clock-{turn}"
        process = bench(folder, *RUN, tracked=tracked, start=("-c", BACKWARDS))
        if turn:
            time.sleep(0.7 * truth.seconds["run"])
            process.kill()
            finish(process)
            process = bench(folder, *RUN, tracked=tracked, start=("-c", BACKWARDS))
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


def memory(truth: Undisturbed, root: Path) -> Count:
    """Workers of a parallel run are killed, as the system does when memory runs out."""
    count = Count()
    for turn in range(3):
        folder = root / f"memory-{turn}"
        process = bench(folder, *RUN, "--executor", "processes", "--jobs", "2")
        time.sleep((0.6 + 0.3 * turn) * truth.seconds["run"])
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
    shutil.copytree(truth.place(RUN), root / "there")
    table = bench(root / "there", "tables", "--format", "csv")
    assert finish(table)[0] == 0
    # the next command takes the artifacts along
    code, _ = finish(bench(root / "there", *RUN))
    count.note(code == 0 and truth.is_whole(root / "there", RUN))
    code, _ = finish(bench(root / "there", "track", "rebuild"))
    count.note(code == 0 and truth.is_whole(root / "there", RUN))
    return count


@dataclass
class Row:
    """A line of the table."""

    fault: str
    tried: int | None
    survived: int | None
    seconds: float

    @property
    def lost(self) -> int:
        return (self.tried or 0) - (self.survived or 0)


class Report:
    """The table in ``results/faults``, which grows and is continued on the same commit."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.path, self.settings = folder / "faults.json", settings
        self.rows: dict[str, Row] = {}
        with suppress(OSError, ValueError, KeyError):
            known = json.loads(self.path.read_text())
            if known["settings"] == settings:
                self.rows = {row["fault"]: Row(**row) for row in known["rows"]}

    def add(self, row: Row) -> None:
        """Take a line in and write the table."""
        self.rows[row.fault] = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = {"settings": self.settings, "rows": [asdict(each) for each in self.rows.values()]}
        self.path.write_text(json.dumps(whole, indent=1) + "\n")
        lines = [
            "# What survives faults",
            "",
            "Every finished result is there afterwards exactly once, equal to that of an "
            "undisturbed run, and shown so by the tracker, or it counts as lost. Made by "
            f"`nox -s faults` on commit {self.settings['commit']}; "
            f"{self.settings['times']} random moments a command, "
            f"{self.settings['calls'] or 'all'} system calls of each kind.",
            "",
            "| fault | tried | survived | lost |",
            "|:--|--:|--:|--:|",
        ]
        for each in self.rows.values():
            shown = ["-"] * 3 if each.tried is None else [each.tried, each.survived, each.lost]
            lines.append(f"| {each.fault} | {' | '.join(map(str, shown))} |")
        known = [each for each in self.rows.values() if each.tried is not None]
        total = [sum(getattr(each, name) or 0 for each in known) for name in ("tried", "survived")]
        lines += [f"| **together** | {total[0]} | {total[1]} | {total[0] - total[1]} |", ""]
        if len(known) < len(self.rows):
            lines += ["-: cannot be tried on this machine.", ""]
        (self.path.parent / "README.md").write_text("\n".join(lines))


def commit() -> str:
    """The commit that is tested."""
    from bench.execution import machine

    return machine.commit()


def main() -> int:
    """Run every scenario and write the table; 1 when anything was lost."""
    parser = argparse.ArgumentParser(description="Break things while the bench works.")
    parser.add_argument("words", nargs="*", help="only scenarios with one of them in the title")
    parser.add_argument("--times", type=int, default=3, help="random moments of each signal")
    parser.add_argument("--calls", type=int, default=1, help="calls of each kind; 0: all")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "faults")
    asked = parser.parse_args()
    times, each = asked.times, asked.calls or None
    report = Report(asked.output, {"commit": commit(), "times": times, "calls": asked.calls})
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        truth = Undisturbed(root / "undisturbed")

        def calls(begin: list[str] | None, arguments: list[str]) -> Count | None:
            most = None if each is None else 3 * each
            place = None if begin is None else truth.place(begin)
            return at_calls(root, arguments, place, each, most)

        each_call = "killed at system calls of each kind:"
        scenarios: dict[str, Callable[[], Count | None]] = {
            f"{each_call} run": lambda: at_calls(root, RUN, None, each),
            f"{each_call} attack-eval": lambda: at_calls(root, ATTACKS, None, each),
            f"{each_call} points build": lambda: at_calls(root, POINTS, None, each),
            **{
                f"killed at system calls: {name}": functools.partial(calls, *both)
                for name, both in OTHERS.items()
            },
            "SIGKILL during a run": lambda: killed_by(truth, root, RUN, signal.SIGKILL, times),
            "SIGTERM during a run": lambda: killed_by(truth, root, RUN, signal.SIGTERM, times),
            "SIGKILL during points build": lambda: killed_by(
                truth, root, POINTS, signal.SIGKILL, times
            ),
            "SIGTERM during points build": lambda: killed_by(
                truth, root, POINTS, signal.SIGTERM, times
            ),
            "SIGKILL during attack-eval": lambda: killed_by(
                truth, root, ATTACKS, signal.SIGKILL, times
            ),
            "SIGTERM during attack-eval": lambda: killed_by(
                truth, root, ATTACKS, signal.SIGTERM, times
            ),
            "two equal commands at once": lambda: twice(truth, root),
            "four on an empty folder": lambda: four_on_nothing(truth, root),
            "disk full": lambda: full_disk(truth, root),
            "damaged files": lambda: damaged(truth, root),
            "tracker refuses or is deaf": lambda: deaf_tracker(truth, root),
            "tracker dies": lambda: dying_tracker(truth, root),
            "tracker is slow": lambda: slow_tracker(truth, root),
            "results not writable": lambda: read_only(truth, root),
            "clock set back": lambda: clock_set_back(truth, root),
            "diverged seeds": lambda: diverged(truth, root),
            "a worker killed": lambda: memory(truth, root),
            "folder moved": lambda: moved(truth, root),
        }
        print(f"{'fault':48} tried survived  lost", flush=True)
        for title, scenario in scenarios.items():
            if asked.words and not any(word in title for word in asked.words):
                continue
            if title not in report.rows:
                start = time.monotonic()
                count = scenario()
                taken = time.monotonic() - start
                tried = (None, None) if count is None else (count.tried, count.survived)
                report.add(Row(title, *tried, taken))
            row = report.rows[title]
            if row.tried is None:
                print(f"{title:48} cannot be tried here", flush=True)
            else:
                print(f"{title:48} {row.tried:5} {row.survived:8} {row.lost:5}", flush=True)
    return int(any(row.lost for row in report.rows.values()))


if __name__ == "__main__":
    raise SystemExit(main())
