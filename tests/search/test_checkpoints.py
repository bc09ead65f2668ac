"""Checkpoints: an evaluation that dies goes on from where it was to the same result, and leaves nothing when done."""

import pytest
import torch

from pared.data import load
from pared.search import checkpoints
from pared.search.defaults import default_space
from pared.search.story import base_settings
from pared.search.subject import evaluated, of_series
from pared.search.trials import Key, Task

POINT = {"cell": "gru", "layers": 1, "width_1": 4, "heads": 0, "window": 4, "lr": 0.01, "batch_size": 256}


class Killed(BaseException):
    """What a kill does to the evaluation: nothing of it runs any more."""


@pytest.fixture(scope="module")
def subject():
    data = load("henon", None, ())
    base = base_settings(data, 8)
    return of_series(data, base, ("error",), default_space(data, 1))


@pytest.mark.slow
@pytest.mark.parametrize("milestones", [(), ((3, 1e9), (5, 1e9))])
def test_an_evaluation_that_dies_again_and_again_comes_to_the_same_result(tmp_path, monkeypatch, subject, milestones):
    task = Task(Key("search", 3, 0), POINT, milestones)
    left_alone = evaluated(subject, task)
    folder, keep, deaths = tmp_path / checkpoints.FOLDER, checkpoints.Course._keep, 0

    def kept_and_killed(course):
        keep(course)
        raise Killed

    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)  # after every epoch
    monkeypatch.setattr(checkpoints.Course, "_keep", kept_and_killed)
    found = None
    while found is None:
        try:
            found = evaluated(subject, task, folder)
        except Killed:
            deaths += 1
            assert [path.name for path in folder.iterdir()] == ["search-3-0.pt"]
    assert found == left_alone
    assert deaths >= 3 * 7
    assert not folder.exists()


def test_a_short_evaluation_writes_nothing_and_a_failed_or_damaged_one_leaves_nothing(tmp_path, monkeypatch, subject):
    task, folder = Task(Key("search", 3, 0), POINT), tmp_path / checkpoints.FOLDER
    monkeypatch.setattr(checkpoints, "SECONDS", 600.0)
    monkeypatch.setattr(torch, "save", None)
    left_alone = evaluated(subject, task, folder)
    monkeypatch.undo()
    assert not folder.exists()
    for content in (b"no checkpoint", b""):
        folder.mkdir()
        (folder / "search-3-0.pt").write_bytes(content)
        assert evaluated(subject, task, folder) == left_alone
        assert not folder.exists()
    folder.mkdir()
    (folder / "search-3-0.pt").write_bytes(b"")
    monkeypatch.setattr(checkpoints.Course, "trained", None)
    with pytest.raises(TypeError):
        evaluated(subject, task, folder)
    assert not folder.exists()
