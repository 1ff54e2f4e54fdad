"""A real Ray cluster of two nodes on one machine, one of which dies in the middle."""

import ctypes
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jobs import linger, square
from test_executors import UNSENT

from attacks.dense import PGD
from bench import registry
from bench.errors import Failed
from bench.execution import signals
from bench.execution.executors import Local, Lost
from bench.execution.progress import Silent
from bench.execution.ray_cluster import Ray
from bench.execution.workspace import Workspace
from bench.robustness import evaluation
from bench.robustness.trials import Trial
from bench.studies import jobs as training_jobs
from bench.studies.jobs import Job
from bench.training.recipes import Recipe
from bench.training.victims import Victim

ray = pytest.importorskip("ray", reason="Ray is not there for this Python: pip install '.[ray]'")

# Ray leaves sockets and files to the garbage collector
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    # workers import the jobs by name
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    small = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=small | {"include_dashboard": False})
    cluster.second = cluster.add_node(**small)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def connected(cluster: Any) -> Iterator[Any]:
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()


def through(executor: Ray, work: Any, jobs: list[int], folder: Path) -> dict[int, Any]:
    workspace = Workspace(results=folder)
    return dict(executor.map(work, jobs, workspace, Silent(), lambda: False))


def test_jobs_on_two_nodes_survive_the_loss_of_one(connected: Any, tmp_path: Path) -> None:
    jobs = [3, 1, 4, 1, 5, 9]
    expected = dict(enumerate(job * job for job in jobs))
    assert through(Ray(2), square, jobs, tmp_path) == expected
    workspace = Workspace(results=tmp_path)
    found: dict[int, Any] = {}
    for index, value in Ray(2).map(linger, jobs, workspace, Silent(), lambda: False):
        found[index] = value
        if connected.second is not None:
            connected.remove_node(connected.second)  # what runs there is lost
            connected.second = None
    assert found == expected
    assert not any(isinstance(value, Lost) for value in found.values())


def test_trainings_and_attacks_give_the_same_as_here(connected: Any, tmp_path: Path) -> None:
    cutout = registry.build("augmentations", "cutout", data="digits", side=8)
    recipe = Recipe(
        data="digits(train=80, test=40)", model="resnet8", augmentation=cutout, epochs=2, padding=1
    )
    wanted = [Job(recipe, seed) for seed in (0, 1)]
    found: dict[str, list[dict[str, float]]] = {}
    shards: dict[str, list[Any]] = {}
    for name, executor in (("here", Local()), ("there", Ray(1))):
        place = Workspace(results=tmp_path / name)
        records = [
            record for record, _ in training_jobs.run(wanted, place, Silent(), executor=executor)
        ]
        records.sort(key=lambda record: record.seed)
        found[name] = [
            {n: v for n, v in record.metrics.items() if "seconds" not in n} for record in records
        ]
        trained = tmp_path / "here" / "weights" / f"{records[0].name}.safetensors"
        victim = Victim(model="resnet8", data=recipe.data, path=trained)
        trial = Trial(attack=PGD(steps=2), victim="v", data="d", eps="8/255", images=4)
        chosen = evaluation.load_victim(victim, 4, place, Silent())[1]
        blocks = evaluation.attack_jobs(trial, 0, victim, chosen)
        ((_, _, outcomes, _),) = evaluation.run(blocks, place, Silent(), executor=executor)
        shards[name] = [outcomes[0].verdict.l2.tolist(), outcomes[0].forwards.tolist()]
    assert found["here"] == found["there"]
    assert shards["here"] == shards["there"]


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize(("work", "said"), UNSENT)
def test_an_exception_that_cannot_be_sent_is_told_at_once(
    work: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(Failed, match=said):
        through(Ray(1), work, [3], tmp_path)


def test_an_address_where_nobody_answers_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        through(Ray(1, address="127.0.0.1:1"), square, [1], tmp_path)


@pytest.mark.parametrize("address", ["auto", "ray://head"])
def test_an_address_without_a_port_is_one_clear_line(address: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"--address {address} names no port: give it as HOST"):
        through(Ray(1, address=address), square, [1], tmp_path)


OWN_CLUSTER = """
import subprocess, sys
from bench.execution.ray_cluster import Ray
ray = Ray(1).connect()
print(ray.get_runtime_context().gcs_address, flush=True)
assert ray.get(ray.remote(lambda: 7).remote()) == 7
sys.stdin.read()
"""
CALLER = """
import sys, ray
ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
print("came in", ray.get(ray.remote(lambda: 7).remote()))
"""


def listeners(mark: str) -> list[str]:
    """The local addresses, in hexadecimal, at which processes with a variable in them listen."""
    inodes = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() not in (process / "environ").read_bytes():
                continue
            inodes |= {os.readlink(link) for link in (process / "fd").iterdir()}
        except OSError:
            continue
    lines = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path("/proc/net", table).read_text().splitlines()[1:]
    ]
    return [
        line[1].partition(":")[0]
        for line in lines
        if line[3] == "0A" and f"socket:[{line[9]}]" in inodes
    ]


def comes_in(address: str, environment: dict[str, str], seconds: float) -> bool:
    """Whether a driver can run code on a cluster; one that is refused goes on asking."""
    try:
        caller = subprocess.run(
            [sys.executable, "-c", CALLER, address],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return False
    return "came in" in caller.stdout


TOKEN = 64 * "7"
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux tells who listens")
def test_a_cluster_of_our_own_listens_on_loopback_alone_and_asks_for_a_token() -> None:
    mark = f"bench-{uuid.uuid4()}"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with subprocess.Popen(
        [sys.executable, "-c", OWN_CLUSTER],
        env=clean | {"BENCH_MARK": mark, "RAY_AUTH_TOKEN": TOKEN},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as driver:
        assert driver.stdout is not None
        address = driver.stdout.readline().strip()
        try:
            found = listeners(mark)
            assert len(found) >= 3  # at least the store, the node and a worker
            assert set(found) <= LOOPBACK
            token = {
                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": TOKEN,
            }
            start = time.monotonic()
            assert comes_in(address, clean | token, 60)
            # whoever is let in would be by then, on a busy machine too
            enough = max(10, 3 * (time.monotonic() - start))
            assert not comes_in(address, clean | token | {"RAY_AUTH_TOKEN": 64 * "0"}, enough)
            assert not comes_in(address, clean | token | {"RAY_AUTH_MODE": "disabled"}, enough)
        finally:
            driver.communicate("", timeout=60)
    assert driver.returncode == 0


def test_handlers_come_back_while_a_library_keeps_the_lock_of_python() -> None:
    """As Ray does for a third of a second when it connects, with a handler of its own in force."""
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    library = ctypes.PyDLL(None)  # calls keep the lock
    library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    try:
        with signals.kept(), subprocess.Popen(["sh", "-c", f"sleep 0.2; kill -TERM {os.getpid()}"]):
            library.signal(signal.SIGTERM, 1)  # ignored from here on
            library.usleep(600_000)
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("seconds", [3, 20])
def test_sigterm_is_an_interruption_while_the_cluster_starts_and_afterwards(
    seconds: int, tmp_path: Path
) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = ["run", "--aug", "none", "--model", "resnet8", "--epochs", "40000", "--jobs", "1"]
    command += ["--executor", "ray", "--no-tracking", "--results", str(tmp_path)]
    with subprocess.Popen(
        [sys.executable, "-m", "bench", *command], env=clean, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while "  none" not in process.stderr.readline():
            pass
        time.sleep(seconds)
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
    assert process.returncode == 130, said
    assert "the same command continues" in said
    assert "SIGTERM received" not in said
