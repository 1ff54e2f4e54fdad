"""What a record says about the software and the machine that produced it."""

from __future__ import annotations

import functools
import platform
import subprocess
import sys
from pathlib import Path


@functools.lru_cache(maxsize=1)
def commit() -> str:
    """Return the commit of the checkout, with a ``+`` if files have changed; empty outside one."""
    here = Path(__file__).parents[2]
    try:
        run = functools.partial(
            subprocess.run, cwd=here, capture_output=True, text=True, check=True, timeout=10
        )
        if Path(run(["git", "rev-parse", "--show-toplevel"]).stdout.strip()) != here:
            return ""
        head = run(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip()
        # without refreshing the index, whose lock another git may want
        status = ["git", "--no-optional-locks", "status", "--porcelain", "--untracked-files=no"]
        changed = run(status).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return head + ("+" if changed else "")


@functools.lru_cache(maxsize=1)
def version() -> str:
    """Return the version of the installed package; ``0+unknown`` if it is not installed."""
    from importlib import metadata

    try:
        return metadata.version("deletion-bench")
    except metadata.PackageNotFoundError:
        return "0+unknown"


def machine(device: str) -> dict[str, str]:
    """Return what a record says about the machine; neither its name nor any path.

    Args:
        device: The torch device of the job.

    Returns:
        Versions of bench, Python and torch, the commit, the operating system, the names of
        processor and device, and the number of processor threads.
    """
    import torch

    return {
        "bench": version(),
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
        "processor": processor(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "threads": str(torch.get_num_threads()),
    }


@functools.lru_cache(maxsize=1)
def computes_bfloat16() -> bool:
    """Return whether the processor has instructions for bfloat16, as Linux lists them."""
    if sys.platform != "linux":
        return False
    words = Path("/proc/cpuinfo").read_text(errors="replace").split()
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(words)


@functools.lru_cache(maxsize=1)
def convolves_bfloat16() -> bool:
    """Return whether PyTorch has convolutions in bfloat16 for this processor.

    Without them it unpacks whole batches, which takes several times as long as float32.
    """
    import torch

    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a build of PyTorch without oneDNN
        return False


@functools.lru_cache(maxsize=1)
def processor() -> str:
    """Return the processor's name as the operating system reports it."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
