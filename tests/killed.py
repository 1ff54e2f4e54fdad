"""Commands that start fast, and are killed at a chosen system call.

Commands are forked from a process that has imported everything once (multiprocessing's fork
server); strace tells which calls of a command change its folder, and kills it at one of them.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
CHANGES = (
    *("rename", "unlink", "mkdir", "rmdir", "fsync", "fdatasync", "pwrite64", "ftruncate"),
    *("write", "openat"),
)
"""System calls that change a disk; those of other files than the folder's are left out."""
PRELOADED = ["bench.cli.run", "bench.studies.comparison", "bench.studies.attack_study"]
PRELOADED += [
    "bench.records.tracking.tracker",
    "bench.reporting.report",
    "bench.paper.figure_requests",
]
PRELOADED += ["mlflow.store.tracking.sqlalchemy_store", "mlflow.store.db.utils", "torch._dynamo"]
PRELOADED += ["sklearn.datasets", "albumentations", "augmentations", "attacks", "scipy.stats"]
PRELOADED += ["matplotlib.figure", "matplotlib.backends.backend_agg", "scipy.stats", "tabulate"]
PRELOADED += ["breaking.compiled"]
"""What takes most of the time of a small command, and nothing that starts a thread."""


class Forked:
    """A command in a process of its own, with the methods of `subprocess.Popen` that faults use."""

    def __init__(self, arguments: list[str], folder: Path, paused: bool = False) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.said = Path(tempfile.mkdtemp(prefix="faults-said-"))
        self.process = context.Process(
            target=_command, args=(arguments, str(folder), str(self.said), paused)
        )
        self.process.start()

    @property
    def pid(self) -> int:
        found = self.process.pid
        assert found is not None
        return found

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> None:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("bench", timeout or 0.0)

    def send_signal(self, number: int) -> None:
        if self.process.exitcode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float) -> tuple[str, str]:
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.join()
        # a command that was killed before it began has said nothing
        files = [self.said / name for name in ("out", "err")]
        said = [file.read_text(errors="replace") if file.exists() else "" for file in files]
        shutil.rmtree(self.said)
        return said[0], said[1]


def _command(arguments: list[str], folder: str, said: str, paused: bool) -> None:
    for number, name in ((1, "out"), (2, "err")):
        opened = os.open(Path(said, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
    if paused:
        os.kill(os.getpid(), signal.SIGSTOP)
    os.environ["BENCH_RESULTS"] = folder
    from bench.cli import main

    sys.argv = ["bench", *arguments]
    main(arguments, prog_name="bench")


def can_trace() -> bool:
    """Whether strace is there and may look at other processes."""
    if shutil.which("strace") is None:
        return False
    probe = subprocess.Popen(["sleep", "9"])
    try:
        tracer = subprocess.Popen(
            ["strace", "-qq", "-o", "/dev/null", "-p", str(probe.pid)], stderr=subprocess.DEVNULL
        )
        time.sleep(0.5)
        attached = tracer.poll() is None
        tracer.terminate()
        tracer.wait()
        return attached
    finally:
        probe.kill()
        probe.wait()


def calls(arguments: list[str], folder: Path) -> dict[str, list[int]]:
    """Run a command; which calls of each kind changed something below the folder, from 1."""
    with tempfile.NamedTemporaryFile("r", suffix=".strace") as log:
        trace = ["-y", "-s", "0", "-e", f"trace={','.join(CHANGES)}"]
        command = _traced(arguments, folder, [*trace, "-o", log.name])
        _, said = command.communicate(900)
        counts: Counter[str] = Counter()
        found: dict[str, list[int]] = {}
        for line in log:
            if (match := re.match(r"(?:\d+ +)?(\w+)\(", line)) is None:
                continue
            name = match[1]
            counts[name] += 1
            reads = name == "openat" and "O_CREAT" not in line
            if str(folder) in line and not reads and "ENOENT" not in line:
                found.setdefault(name, []).append(counts[name])
    assert command.returncode == 0, said
    return found


def killed_at(arguments: list[str], folder: Path, call: str, number: int) -> Forked:
    """Start a command that is killed at its n-th call of a kind."""
    kill = ["-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}"]
    return _traced(arguments, folder, [*kill, "-o", "/dev/null"])


def _traced(arguments: list[str], folder: Path, options: list[str]) -> Forked:
    command = Forked(arguments, folder, paused=True)
    _until(lambda: _state(command.pid, "State").startswith("T"))
    tracer = subprocess.Popen(
        ["strace", "-qq", *options, "-p", str(command.pid)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _until(lambda: _state(command.pid, "TracerPid") not in ("", "0"))
    os.kill(command.pid, signal.SIGCONT)
    command.tracer = tracer  # type: ignore[attr-defined]
    return command


def _state(pid: int, name: str) -> str:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":")[1].strip() for line in lines if line.startswith(name)), "")


def _until(true: object) -> None:
    deadline = time.monotonic() + 120
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, "the command does not start"
        time.sleep(0.02)


def spread(numbers: list[T], count: int | None) -> list[T]:
    """As many numbers, evenly from the first to the last; None: all of them.

    >>> spread([3, 4, 5, 9], 2)
    [3, 9]
    """
    if count is None or len(numbers) <= count:
        return numbers
    if count == 1:
        return [numbers[len(numbers) // 2]]
    return [numbers[round(place * (len(numbers) - 1) / (count - 1))] for place in range(count)]
