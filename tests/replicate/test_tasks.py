"""Tasks: every arm that the tables ask for, the same numbers every time, kept as they finish."""

import json
from dataclasses import replace

import pytest

from commands import assert_refused, pared
from pared.replicate.junk_neuron import folder, record
from pared.replicate.junk_neuron.arms import Arm, arm, below, relative
from pared.replicate.junk_neuron.folder import Settings, finished, open_folder, settings, work
from pared.replicate.junk_neuron.protocol import BUDGETS, network
from pared.replicate.junk_neuron.published import SYSTEMS
from pared.replicate.junk_neuron.tasks import equal_epochs, run
from pared.types import DataError

SYSTEM = SYSTEMS["logistic-3.9"]
TINY = replace(BUDGETS["paper"], epochs=1, refit_epochs=1, seeds=2, blocks=1)
SMALL = Settings((SYSTEM,), (TINY,))


def untimed(results):
    return {key: {name: part for name, part in found.items() if name != "seconds"} for key, found in results.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small replication in one go: its folder."""
    path = tmp_path_factory.mktemp("whole") / "study"
    open_folder(path, SMALL)
    work(path, SMALL, 1)
    return path


def test_every_network_that_the_tables_ask_for_is_there(whole):
    results = finished(whole, SMALL)
    assert set(results) == {("paper", SYSTEM.name, seed) for seed in (None, 0, 1)}
    built = record.build(results, SMALL)["budgets"]["paper"]  # raises where one is missing
    assert (built["done"], built["of"]) == (3, 3)
    arms = {(row["treatment"], row["order"], row["deleted"]) for row in results["paper", SYSTEM.name, 0]["rows"]}
    assert {("scratch", "", count) for count in (*relative(SYSTEM), *SYSTEM.deleted)} <= arms
    for kind in ("surgery", "refit"):
        assert {(kind, order, 4) for order in ("out", "in", "random", "largest")} <= arms


def test_pairs_differ_and_no_two_networks_are_one(whole):
    rows = finished(whole, SMALL)["paper", SYSTEM.name, 0]["rows"]
    figures = [(row["nrmse"], row["direction"], row["free"]) for row in rows]
    assert len(set(figures)) > 0.9 * len(figures)


def test_a_stopped_study_goes_on_and_finds_the_same(whole, tmp_path, monkeypatch):
    calls = []

    def stopping(task):
        calls.append(task)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run(task)

    open_folder(tmp_path / "study", SMALL)
    monkeypatch.setattr(folder, "run", stopping)
    with pytest.raises(KeyboardInterrupt):
        work(tmp_path / "study", SMALL, 1)
    assert len(finished(tmp_path / "study", SMALL)) == 2
    open_folder(tmp_path / "study", SMALL)
    calls.clear()
    monkeypatch.setattr(folder, "run", lambda task: calls.append(task) or run(task))
    work(tmp_path / "study", SMALL, 1)
    assert [task.seed for task in calls] == [1]
    assert untimed(finished(tmp_path / "study", SMALL)) == untimed(finished(whole, SMALL))


@pytest.mark.slow
def test_jobs_change_nothing(whole, tmp_path):
    open_folder(tmp_path / "study", SMALL)
    work(tmp_path / "study", SMALL, 2)
    assert untimed(finished(tmp_path / "study", SMALL)) == untimed(finished(whole, SMALL))


def test_other_settings_are_refused_with_what_differs(whole, tmp_path):
    changes = {
        "paper, seeds: 2 there, 1 here": replace(SMALL, budgets=(replace(TINY, seeds=1),)),
        "budgets: paper there, ten here": replace(SMALL, budgets=(BUDGETS["ten"],)),
        "systems: logistic-3.9 there, henon here": replace(SMALL, systems=(SYSTEMS["henon"],)),
    }
    for words, other in changes.items():
        with pytest.raises(DataError, match=words):
            open_folder(whole, other)
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match="other files"):
        open_folder(tmp_path, SMALL)


def test_a_folder_takes_in_more_budgets_systems_and_seeds_and_keeps_what_it_has(tmp_path):
    longer = replace(
        SMALL, budgets=(replace(TINY, seeds=3), BUDGETS["ten"]), systems=(*SMALL.systems, SYSTEMS["henon"])
    )
    open_folder(tmp_path / "study", SMALL)
    kept = tmp_path / "study" / "parts" / f"{SMALL.tasks()[0].name}.json"
    kept.write_text('{"rows": []}', encoding="utf-8")
    open_folder(tmp_path / "study", longer)
    assert len(finished(tmp_path / "study", longer)) == 1
    with pytest.raises(DataError, match="paper, seeds: 3 there, 2 here"):
        open_folder(tmp_path / "study", replace(longer, budgets=(TINY, BUDGETS["ten"])))
    with pytest.raises(DataError, match="systems"):
        open_folder(tmp_path / "study", SMALL)


def test_damaged_results_are_named(whole, tmp_path):
    open_folder(tmp_path / "study", SMALL)
    part = next((whole / "parts").iterdir())
    (tmp_path / "study" / "parts" / part.name).write_text(part.read_text()[:50], encoding="utf-8")
    with pytest.raises(DataError, match=f"{part.name} is damaged.*remove it"):
        finished(tmp_path / "study", SMALL)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--budget", "long"), ("unknown budget 'long'", "converged")),
        (("--systems", "henon,lorenz"), ("unknown system 'lorenz'", "rossler")),
        (("--seeds", "0"), ("at least 1 seed",)),
    ],
)
def test_the_command_refuses(tmp_path, words, parts):
    assert_refused(pared("replicate", "junk-neuron", *words, "--out", tmp_path / "new"), *parts)
    assert not (tmp_path / "new").exists()


def test_what_is_asked_for_by_name():
    assert [budget.seeds for budget in settings().budgets] == [20, 20, 5]
    asked = settings(budgets=("ten", "paper"), systems=("henon", "logistic-3.6"), seeds=3)
    assert [budget.name for budget in asked.budgets] == ["paper", "ten"]
    assert [system.name for system in asked.systems] == ["logistic-3.6", "henon"]
    assert len(asked.tasks()) == 2 * 2 * (3 + 1)
    assert len({task.name for task in settings().tasks()}) == len(settings().tasks()) == 7 * (20 + 20 + 5 + 3)


def test_names_of_arms():
    assert arm("scratch", "in", 3) == arm("scratch", "out", 3) == Arm("scratch", "", 3)
    assert arm("surgery", "in", 0) == arm("scratch", "", 0) == Arm("base")
    assert arm("refit", "out", 0) == Arm("trained_on")
    assert below([0.05, 0.095, 0.2, 0.3], SYSTEM) == (1, 1, 2)
    assert below([0.01] * 16, SYSTEM) == (15, 15, 15)


def test_equal_compute_counts_multiply_adds():
    def macs(units):  # two steps: two LSTM layers; then the dense layers
        return 2 * (4 * units * (1 + units) + 4 * 4 * (units + 4)) + 4 * 2 + 2

    budget = BUDGETS["ten"]
    for deleted in relative(SYSTEM):
        small = macs(SYSTEM.units - deleted)
        epochs = equal_epochs(SYSTEM, budget, deleted)
        spent = 10 * macs(SYSTEM.units) + 2 * small
        assert (epochs - 1) * small < spent <= epochs * small


def test_networks_are_the_papers():
    model = network(SYSTEMS["henon"], 21, seed=3)
    assert [layer.hidden_size for layer in model.recurrent] == [21, 2]
    assert [layer.out_features for layer in model.head] == [2, 1]
    weight = model.recurrent[0].weight_hh_l0
    assert (weight.T @ weight - weight.new_ones(21).diag()).abs().max() < 1e-5


@pytest.mark.slow
def test_a_quick_run_of_one_system(tmp_path):
    words = ("replicate", "junk-neuron", "--quick", "--systems", "logistic-3.99", "--out", tmp_path, "--jobs", 1)
    first = pared(*words)
    assert first.exit_code == 0, first.stderr
    assert "supports no claim" in " ".join(first.stdout.split())
    where = tmp_path / "replicate-junk-neuron-quick"
    assert {path.name for path in where.iterdir()} == {
        "parts", "settings.json", "results.json", "report.html", "provenance.json"
    }  # fmt: skip
    built = json.loads((where / "results.json").read_text(encoding="utf-8"))
    assert all(budget["done"] == budget["of"] == 2 for budget in built["budgets"].values())
    page = (where / "report.html").read_bytes()
    again = pared(*words)
    assert again.exit_code == 0
    assert (where / "report.html").read_bytes() == page
    assert_refused(pared(*words, "--systems", "henon"), "systems: logistic-3.99 there, henon here", "--out")
