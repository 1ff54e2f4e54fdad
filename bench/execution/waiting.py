"""How idle processor threads wait: actively on an idle machine, passively on a busy one."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

POLICIES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Environment variables with which a user chooses; one of them is never overruled."""
BUSY = 0.5
"""Load beside this command from which threads should not spin: half of one processor."""


def choose(environ: MutableMapping[str, str], load: float | None = None) -> bool:
    """Let threads sleep while they wait, if other processes need the processors.

    A thread of OpenMP spins for a while when it waits for others. With one busy process beside, two
    spinning threads on two processors were measured 1.7 to 2.8 times slower than two sleeping ones;
    on an idle machine sleeping costs 5 to 19 %. The number of threads, and so the results, stay as
    they are. It has an effect only before torch is imported.

    Args:
        environ: Environment of the process; ``OMP_WAIT_POLICY`` is set in it.
        load: Processes that want to run, as the mean of the last minute; None: the machine's.

    Returns:
        Whether the variable was set here.
    """
    if any(name in environ for name in POLICIES):
        return False
    if load is None:
        try:
            load = os.getloadavg()[0]
        except (AttributeError, OSError):  # a system without load averages
            return False
    if load < BUSY:
        return False
    environ["OMP_WAIT_POLICY"] = "PASSIVE"
    return True
