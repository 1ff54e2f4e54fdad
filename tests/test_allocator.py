"""Freed memory is kept for the next tensor, unless the user has chosen."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from bench.execution import allocator

GNU = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the GNU C library")

FAULTS = """
import resource, sys
import torch
from bench.execution import allocator
if sys.argv[1] == "kept":
    assert allocator.keep({})

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        images = torch.ones(2**22)  # 16 MiB
        images = images + 1, images + 2, images + 3
        del images
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(), faults()
print(faults())
"""


def faults(how: str) -> int:
    """New pages that a process touches while it makes tensors of 16 MiB and frees them."""
    environ = {name: text for name, text in os.environ.items() if name not in allocator.VARIABLES}
    command = [sys.executable, "-c", FAULTS, how]
    run = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    return int(run.stdout)


@GNU
def test_tensors_use_the_memory_of_freed_ones() -> None:
    """The system may take a page back at any moment, so one of three tries is enough."""
    assert any(10 * faults("kept") < faults("given back") for _ in range(3))


@GNU
def test_workers_are_told_too() -> None:
    environ: dict[str, str] = {}
    assert allocator.keep(environ)
    assert environ == {
        "MALLOC_MMAP_THRESHOLD_": "33554432",
        "MALLOC_TRIM_THRESHOLD_": "2147483647",
    }


@pytest.mark.parametrize("name", allocator.VARIABLES)
def test_what_the_user_has_chosen_stays(name: str) -> None:
    environ = {name: "65536"}
    assert not allocator.keep(environ)
    assert environ == {name: "65536"}


def test_another_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: object())
    environ: dict[str, str] = {}
    assert not allocator.keep(environ)
    assert environ == {}
