"""Worker processes: the same results as in one process, a replacement for each that dies, none left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import searching
from commands import environment
from pared.search import SearchError, SearchSettings, search
from pared.search import workers as workers_module
from pared.search.story import _Function
from pared.search.trials import Evaluation, Failure, Key, Task
from pared.search.workers import crew

slow = pytest.mark.slow  # every process loads PyTorch


def test_what_cannot_be_sent_is_told():
    with pytest.raises(SearchError, match=r"cannot be sent to other processes .*at the top of a module"):
        search(lambda point, seed: 0.0, searching.SPACE, SearchSettings(3), jobs=2)


@slow
def test_two_workers_give_what_one_process_gives_and_the_dead_are_replaced():
    settings = SearchSettings(20, seed=2, lag=4, share=0.0)
    alone = search(searching.slow, searching.SPACE, settings)
    tasks = [Task(Key("search", trial.number, 2), trial.point) for trial in alone.trials]
    with crew(_Function(searching.slow), 2) as workers:
        for task in tasks:
            workers.submit(task)
        found = dict(collected(workers) for _ in range(3))
        before = workers.pids
        os.kill(before[0], signal.SIGKILL)
        found |= dict(collected(workers) for _ in range(len(tasks) - 3))
        after = workers.pids
    assert [found[task.key].values for task in tasks] == [trial.values for trial in alone.trials]
    assert len(after) == 2
    assert before[0] not in after
    assert all(vanishes_process(pid) for pid in after)


@slow
def test_one_two_and_four_jobs_make_the_same_search():
    one, two, four = (search(searching.slow, searching.SPACE, SearchSettings(24, seed=2), jobs=n) for n in (1, 2, 4))
    assert one == two == four


def collected(workers):
    task, result, _ = workers.collect()
    return task.key, result


def vanishes_process(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@slow
def test_a_task_that_kills_its_process_again_and_again_is_a_failure(monkeypatch):
    monkeypatch.setattr(workers_module, "MOST_DEATHS", 2)
    points = [{"kind": "plain", "width": width, "lr": 0.01, "share": 0.0} for width in (64, 16)]
    with crew(_Function(searching.suicidal), 2) as workers:
        for number, point in enumerate(points):
            workers.submit(Task(Key("search", number, 0), point))
        found = {task.key.trial: result for task, result, _ in (workers.collect() for _ in points)}
    assert isinstance(found[0], Failure)
    assert found[0].reason == "its process died 2 times (SIGKILL); perhaps memory ran out"
    assert isinstance(found[1], Evaluation)


@slow
def test_a_script_without_a_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import searching\n"
        "from pared.search import SearchSettings, search\n"
        "search(searching.noisy, searching.SPACE, SearchSettings(3), jobs=2)\n"
    )
    run = subprocess.run([sys.executable, script], env=environment(), capture_output=True, text=True, timeout=120)
    assert run.returncode == 1
    assert "call the search below `if __name__ == '__main__':`" in run.stderr
    assert Path(script).exists()


@slow
def test_workers_end_where_sigterm_is_turned_off(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import signal\n"
        "import searching\n"
        "from pared.search import SearchSettings, search\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    search(searching.noisy, searching.SPACE, SearchSettings(3), jobs=2)\n"
    )
    subprocess.run([sys.executable, script], env=environment(), check=True, timeout=60)
