"""Ray actors: the same search as local workers make, through the deaths of actors, machines and the driver."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

import searching
from commands import assert_refused, environment, pared, write_csv
from pared.search import Cluster, SearchError, SearchSettings, search
from pared.search import actors as actors_module
from pared.search import workers as workers_module
from pared.search.actors import actors
from pared.search.book import Book
from pared.search.places import FILE, in_folder
from pared.search.story import _Function
from pared.search.trials import Failure, Key, Task
from pared.types import DataError

SETTINGS = SearchSettings(8)


def test_without_ray_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(actors_module, "find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "my.csv")
    assert_refused(pared("search", "my.csv", "--engine", "ray"), "needs the package ray: pip install 'pared[ray]'")
    assert not (tmp_path / "runs").exists()


def test_what_cannot_be_a_cluster_is_refused():
    with pytest.raises(DataError, match="workers count from 0"):
        Cluster(-1)
    for address in ("here", "here:", ":1", "ray://here:1", "here:first"):
        with pytest.raises(DataError, match="the address of a Ray cluster is HOST:PORT, or auto"):
            Cluster(1, address)
    assert_refused(pared("search", "wine", "--address", "auto"), "--address names a Ray cluster; add --engine ray")


@pytest.fixture(scope="module")
def cluster():
    """Two machines of a cluster, as processes: a head with two processors, and one with one that may be lost."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster as Machines

    quiet = {"include_dashboard": False, "object_store_memory": 100_000_000}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # no token is written into the home directory
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))  # its workers import the tests' functions
        for name, value in actors_module.ENVIRONMENT.items():
            patch.setenv(name, value)
        machines = Machines(initialize_head=True, head_node_args={"num_cpus": 2, **quiet})
        try:
            yield machines
        finally:
            ray.shutdown()
            machines.shutdown()


def collected(workers, count):
    found = {}
    for _ in range(count):
        task, result, _ = workers.collect()
        found[task.key.trial] = result
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.ray
def test_actors_that_die_are_replaced_and_their_tasks_made_again(cluster, monkeypatch):
    """One is killed, then the machine of another; a point that kills whoever takes it is given up."""
    monkeypatch.setattr(workers_module, "MOST_DEATHS", 2)
    machine = cluster.add_node(num_cpus=1, include_dashboard=False, object_store_memory=100_000_000)
    points = [{"kind": "plain", "width": width, "lr": 0.01, "share": 0.0} for width in (16, 64, *[32] * 22)]
    tasks = [Task(Key("search", number, 0), point) for number, point in enumerate(points)]
    expected = {task.key.trial: searching.noisy(task.point, 0) for task in tasks if task.point["width"] != 64}
    with actors(_Function(searching.suicidal_and_slow), Cluster(3, cluster.address), 4) as workers:
        for task in tasks:
            workers.submit(task)
        found = collected(workers, 4)
        before = {each.pid for each in workers._actors if each.pid}
        os.kill(min(before), signal.SIGKILL)
        found |= collected(workers, 4)
        cluster.remove_node(machine)
        found |= collected(workers, len(tasks) - 8)
        assert len(workers._actors) == 3
    failed = found.pop(1)
    assert isinstance(failed, Failure)
    assert failed.reason.startswith("its process died 2 times (")
    assert {number: result.values[0] for number, result in found.items()} == expected


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.ray
def test_a_driver_that_was_killed_goes_on_to_the_search_of_one_process(cluster, tmp_path):
    command = [sys.executable, searching.__file__, str(tmp_path), "40", "2", cluster.address]
    run = subprocess.Popen(command, env=environment(), start_new_session=True)
    try:
        while not (tmp_path / FILE).exists() or len(Book(in_folder(tmp_path)).keys()) < 5:
            assert run.poll() is None
            time.sleep(0.05)
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    kept = len(Book(in_folder(tmp_path)).keys())
    settings = SearchSettings(40, seed=3, lag=4)
    found = search(searching.slow, searching.SPACE, settings, folder=tmp_path, jobs=Cluster(2, cluster.address))
    assert 5 <= kept < found.evaluations
    assert found == search(searching.slow, searching.SPACE, settings)
    assert found == search(searching.slow, searching.SPACE, settings, folder=tmp_path)  # who works is no setting


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.ray
def test_the_command_makes_the_same_search_on_a_cluster(cluster, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = ("search", "wine", "--trials", 10, "--epochs", 2, "--out")
    for out, engine in (("here", ("local", "--jobs", 1)), ("there", ("ray", "--address", cluster.address))):
        result = pared(*words, out, "--engine", *engine)
        assert result.exit_code == 0, result.stderr
    here, there = (
        json.loads((tmp_path / each / "search-wine-seed0" / "search.json").read_text()) for each in ("here", "there")
    )
    assert here | {"seconds": 0} == there | {"seconds": 0}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.ray
def test_what_keeps_workers_from_starting_is_told(cluster, monkeypatch):
    with pytest.raises(SearchError, match=r"workers cannot start on the cluster \(.*ValueError: not here.*versions of"):
        search(searching.Homesick(os.getpid()), searching.SPACE, SETTINGS, jobs=Cluster(1, cluster.address))
    monkeypatch.setattr(actors_module, "PATIENCE", 0.01)
    with (
        actors(_Function(searching.noisy), Cluster(1, cluster.address), 4) as workers,
        pytest.raises(SearchError, match=r"no worker has started within 0\.01 s: the cluster has"),
    ):
        workers.collect()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.ray
def test_a_cluster_that_is_not_there_is_told():
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(SearchError, match=rf"the Ray cluster at {address} cannot be used .*`ray start --head`"):
        search(searching.noisy, searching.SPACE, SETTINGS, jobs=Cluster(1, address))
