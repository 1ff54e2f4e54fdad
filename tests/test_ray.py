"""A real Ray cluster of two nodes on one machine, one of which dies in the middle."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jobs import linger, square

from attacks.dense import PGD
from bench import evaluation, registry, runs
from bench.cluster import Ray
from bench.executors import Local, Lost
from bench.progress import Silent
from bench.recipes import Recipe
from bench.runs import Job
from bench.trials import Trial
from bench.victims import Victim
from bench.workspace import Workspace

ray = pytest.importorskip("ray", reason="Ray is not there for this Python: pip install '.[ray]'")

# Ray leaves sockets and files to the garbage collector
pytestmark = [
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
    workspace = Workspace(results=folder, data="digits")
    return dict(executor.map(work, jobs, workspace, Silent(), lambda: False))


def test_jobs_on_two_nodes_survive_the_loss_of_one(connected: Any, tmp_path: Path) -> None:
    jobs = [3, 1, 4, 1, 5, 9]
    expected = dict(enumerate(job * job for job in jobs))
    assert through(Ray(2), square, jobs, tmp_path) == expected
    workspace = Workspace(results=tmp_path, data="digits")
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
    jobs = [Job(recipe, seed) for seed in (0, 1)]
    found: dict[str, list[dict[str, float]]] = {}
    shards: dict[str, list[Any]] = {}
    for name, executor in (("here", Local()), ("there", Ray(1))):
        place = Workspace(results=tmp_path / name, data=recipe.data)
        records = [record for record, _ in runs.run(jobs, place, Silent(), executor=executor)]
        records.sort(key=lambda record: record.seed)
        found[name] = [
            {n: v for n, v in record.metrics.items() if "seconds" not in n} for record in records
        ]
        trained = tmp_path / "here" / "weights" / f"{records[0].name}.safetensors"
        victim = Victim(model="resnet8", path=trained)
        trial = Trial(attack=PGD(steps=2), victim="v", data="d", eps="8/255", images=4)
        chosen = evaluation.opponent(victim, 4, place, Silent())[1]
        blocks = evaluation.parts(trial, 0, victim, chosen)
        ((_, _, outcomes, _),) = evaluation.run(blocks, place, Silent(), executor=executor)
        shards[name] = [outcomes[0].verdict.l2.tolist(), outcomes[0].forwards.tolist()]
    assert found["here"] == found["there"]
    assert shards["here"] == shards["there"]


def test_an_address_where_nobody_answers_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        through(Ray(1, address="127.0.0.1:1"), square, [1], tmp_path)
