"""Commands that are stopped: at system calls and at random moments, alone and together."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import killed
from breaking.commands import BEGINNINGS, CASES, RUN, Case
from breaking.truth import Count, Undisturbed, bench, blocks, finish, results


def killed_by(truth: Undisturbed, root: Path, name: str, how: signal.Signals, times: int) -> Count:
    """Send a signal at random moments; the same command must then complete the same results.

    A command that was faster than the signal is started again and not counted.
    """
    count, seconds, arguments = Count(), truth.seconds[name], BEGINNINGS[name][1]
    chance = random.Random(0)
    for turn in range(10 * times):
        folder = root / f"{how.name}-{name}-{turn}"
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


def at_calls(truth: Undisturbed, root: Path, case: Case, each: int | None) -> Count | None:
    """Kill a command at system calls that change its folder; the same command then completes it.

    Args:
        truth: What is right.
        root: Where folders are made.
        case: The command.
        each: Number of calls of each kind, evenly from the first to the last, and three times as
            many of all kinds together where the case is not thorough; None: all.
    """
    if not killed.can_trace():
        return None
    count, place = Count(), root / "calls" / "results"
    words = [word.replace("{folder}", str(place)) for word in case.words]
    truth.of(case)
    truth.begin(case, place)
    found = killed.calls(words, place)
    most = None if each is None or case.thorough else 3 * each
    chosen = [(call, n) for call, all_of in found.items() for n in killed.spread(all_of, each)]
    for call, number in killed.spread(chosen, most):
        shutil.rmtree(place, ignore_errors=True)
        truth.begin(case, place)
        code, _ = finish(killed.killed_at(words, place, call, number))
        wrong = truth.completes(case, place)
        if code != 0:  # it had as many calls as before
            count.note(not wrong)
        if wrong:
            print(f"  lost at {call} {number}: {code}, {wrong}", flush=True)
    shutil.rmtree(place, ignore_errors=True)
    return count


def terminated(truth: Undisturbed, root: Path) -> Count:
    """Send SIGTERM to every other command at a random moment: it ends soon and says so."""
    count, chance = Count(), random.Random(0)
    for case in CASES:
        truth.of(case)
        for turn in range(0 if case.thorough else 3):
            place = root / f"terminated-{turn}"
            truth.begin(case, place)
            process = bench(place, *case.words)
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0.2, 0.8) / (turn + 1) * truth.seconds[case.title])
            process.send_signal(signal.SIGTERM)
            code, stderr = finish(process)
            wrong = truth.completes(case, place)
            good = not wrong and code in (0, -signal.SIGTERM, 130) and "Traceback" not in stderr
            if not good:
                print(f"  lost: {case.title}, {code}\n{stderr}\n{wrong}", flush=True)
            shutil.rmtree(place, ignore_errors=True)
            if code or not good:
                count.note(good)
                break
    return count


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
        processes = [bench(folder, *RUN, *seeds[2 * i : 2 * i + 2]) for i in range(4)]
        ends = [finish(process) for process in processes]
        quiet = all(code == 0 and "tracker" not in stderr for code, stderr in ends)
        found = results(folder)
        same = all(found[name] == value for name, value in truth.results.items())
        count.note(quiet and len(found) == 4 and same)
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
