"""A real Ray cluster of two nodes on one machine, one of which dies in the middle."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jobs import linger, square

from bench.executors import Lost, Ray
from bench.progress import Silent
from bench.workspace import Workspace

ray = pytest.importorskip("ray", reason="Ray is an extra: pip install '.[ray]'")
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
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def through(executor: Ray, work: Any, jobs: list[int], folder: Path) -> dict[int, Any]:
    workspace = Workspace(results=folder, data="digits")
    return dict(executor.map(work, jobs, workspace, Silent(), lambda: False))


def test_jobs_on_two_nodes_survive_the_loss_of_one(cluster: Any, tmp_path: Path) -> None:
    jobs = [3, 1, 4, 1, 5, 9]
    expected = dict(enumerate(job * job for job in jobs))
    assert through(Ray(2), square, jobs, tmp_path) == expected
    workspace = Workspace(results=tmp_path, data="digits")
    found: dict[int, Any] = {}
    for index, value in Ray(2).map(linger, jobs, workspace, Silent(), lambda: False):
        found[index] = value
        if cluster.second is not None:
            cluster.remove_node(cluster.second)  # what runs there is lost
            cluster.second = None
    assert found == expected
    assert not any(isinstance(value, Lost) for value in found.values())


def test_an_address_where_nobody_answers_is_one_clear_line(tmp_path: Path) -> None:
    ray.shutdown()
    with pytest.raises(ValueError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        through(Ray(1, address="127.0.0.1:1"), square, [1], tmp_path)
