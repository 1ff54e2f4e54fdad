"""Nothing is looked up and nobody is called: the main jobs run with the network cut."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

GUARD = """
import os, socket, sys

ASKING = {"socket.connect", "socket.sendto", "socket.sendmsg"}
LOOKING = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}


def guard(event, arguments):
    if event in ASKING and arguments[0].family == socket.AF_UNIX:
        return
    if event in ASKING | LOOKING:
        with open(os.environ["TRIED"], "a") as file:
            file.write(f"{event} {arguments[1:] if event in ASKING else arguments}\\n")
        raise ConnectionRefusedError("the network is cut")


sys.addaudithook(guard)
"""
"""Refuses and notes every connection and look-up of a process and of those that it starts."""

MAIN = ["run", "--aug", "cutout", "--model", "resnet8", "--seeds", "1", "--epochs", "1"]
ATTACK = ["attack-eval", "--data", "digits", "--model", "resnet8", "--images", "2", "--attack"]
ATTACK += ["sigma-zero(steps=3)"]


@pytest.fixture
def cut(tmp_path: Path) -> dict[str, str]:
    """An environment without a network."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    paths = f"{tmp_path / 'guard'}:{Path(__file__).parents[1]}"
    # what is set for the tests alone would hide who calls home
    kept = {
        name: value
        for name, value in os.environ.items()
        if name
        not in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "NO_ALBUMENTATIONS_UPDATE", "CI")
        and not name.startswith(("PYTEST", "MLFLOW"))
    }
    return kept | {"PYTHONPATH": paths, "TRIED": str(tmp_path / "tried")}


def run(environment: dict[str, str], *arguments: str) -> str:
    """Run Python, which must succeed; what was tried on the network."""
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "tracker" not in done.stderr
    tried = Path(environment["TRIED"])
    return tried.read_text() if tried.exists() else ""


@pytest.mark.slow
def test_a_run_and_an_attack_call_nobody(cut: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "results"
    common = ["--threads", "1", "--results", str(folder)]
    assert run(cut, "-m", "bench", *MAIN, *common) == ""
    assert (folder / "mlflow.db").exists()
    (weights,) = (folder / "weights").glob("*.safetensors")
    assert run(cut, "-m", "bench", *ATTACK, "--victim", str(weights), *common) == ""
    assert len((folder / "records.jsonl").read_text().splitlines()) == 2


def test_a_call_would_have_been_seen(cut: dict[str, str]) -> None:
    call = "import contextlib, socket, urllib.request\nwith contextlib.suppress(OSError):\n    "
    ask = call + "urllib.request.urlopen('http://example.com')"
    connect = call + "socket.create_connection(('192.0.2.1', 80), 1)"
    start = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {connect!r}])"
    assert "example.com" in run(cut, "-c", ask)
    assert "192.0.2.1" not in run(cut, "-c", "")
    assert "192.0.2.1" in run(cut, "-c", start)
