"""Trackers that refuse, are deaf, slow, or die."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from breaking.commands import RUN
from breaking.truth import Count, Undisturbed, bench, finish

STAGES = [b"experiments/", b"runs/create", b"runs/log-batch", b"record.json", b"stats.json"]
"""What a run asks of its tracker, from its start to the intervals at its end."""


def deaf_tracker(truth: Undisturbed, root: Path) -> Count:
    """A tracking server that refuses, and one that takes the connection and never answers."""
    count = Count()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        threading.Thread(target=lambda: server.listen(), daemon=True).start()
        for name, address in (("refuses", "127.0.0.1:9"), ("deaf", f"127.0.0.1:{port}")):
            folder = root / f"tracker-{name}"
            uri = f"http://user:secret@{address}"
            code, stderr = finish(bench(folder, *RUN, "--tracking-uri", uri))
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
            tried(folder, bench(folder, *RUN, "--tracking-uri", relay.address))
        folder = root / "tracker-lives"
        tried(folder, bench(folder, *RUN, "--tracking-uri", uri), 0)
        folder = root / "tracker-killed"
        process = bench(folder, *RUN, "--tracking-uri", uri)
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
            process = bench(folder, *RUN, "--tracking-uri", relay.address)
            code, stderr = finish(process)
            taken = time.monotonic() - start - truth.seconds["run"]
            print(f"  {delay} s an answer, {relay.served} requests: {taken:.0f} s more", flush=True)
            told = stderr.count("the tracker ") == warnings
            count.note(code == 0 and told and taken < 120 and truth.is_whole(folder, RUN))
    return count
