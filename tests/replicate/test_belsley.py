"""Belsley's replication: measures and shares against loops, ways of removal, verdicts, resuming."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from commands import assert_refused, pared
from pared.criteria.belsley import surgeon_path, surgeon_rounds
from pared.replicate import belsley, parts
from pared.replicate.belsley import findings, folder, page, record, tables, toy
from pared.replicate.belsley.analysis import Sample, difference, removable
from pared.replicate.belsley.folder import Settings, finished, settings, work
from pared.replicate.belsley.measures import NOISE, quality, surface
from pared.replicate.belsley.paths import VARIANTS, WAYS, Removals, dropped, obd_signed
from pared.replicate.belsley.protocol import LEVELS, PROBLEMS, Subject, network, subject, table
from pared.replicate.belsley.published import PAPER
from pared.replicate.belsley.tasks import Task, run
from pared.types import Batch, DataError

WINE, BOSTON = PROBLEMS["wine"], PROBLEMS["boston"]


def small(task="numbers", samples=30):
    """A network that nothing was done to, of 4 inputs, 3 hidden units and 1 or 3 outputs."""
    problem = replace(BOSTON if task == "numbers" else WINE, hidden=3)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 4, generator=generator)
    y = torch.randn(samples, 1, generator=generator) if task == "numbers" else torch.arange(samples) % 3
    model = network(4, 3, 1 if task == "numbers" else 3, 0).double()
    return Subject(problem, model, Batch(x, y), Batch(x, y), unit=2.0)


@given(
    st.sampled_from([WINE, BOSTON]),
    st.lists(st.floats(1, 100, allow_nan=False), min_size=len(LEVELS), max_size=len(LEVELS)),
)
def test_what_can_go_is_what_a_loop_finds(problem, values):
    last = 0
    for level, value in zip(LEVELS, values, strict=True):
        good = value >= values[0] - 3 if problem is WINE else value <= 1.1 * values[0]
        if not good:
            break
        last = level
    assert removable(problem, values) == last


def test_the_papers_curves_read_as_its_figures_do():
    found = {
        name: {way: removable(PROBLEMS[name], curve) for way, curve in PAPER.quality[PROBLEMS[name].figure].items()}
        for name in ("wine", "boston")
    }
    assert found["wine"] == {"random": 46, "obd": 78, "variational": 80, "belsley": 84}
    assert found["boston"] == {"random": 4, "obd": 0, "variational": 52, "belsley": 70}


def test_table_1_of_the_paper():
    found = toy.table(trials=100)
    assert found.indices[:3] == pytest.approx([1, 1.547, 3.323], abs=1e-3)
    assert found.shares[:3, 5] == pytest.approx([3.625e-4, 3.187e-2, 0.9678], rel=1e-3)
    assert found.inflation == pytest.approx([579.97, 582.82, 582.82, 579.97, 675.29, 1.038], rel=1e-3)
    assert found.victims.sum() == 100
    assert (found.victims[:5] > 0).all()  # rounding decides
    assert found.victims[5] == 0


@pytest.mark.parametrize("task", ["numbers", "classes"])
def test_measures_are_those_of_the_network_in_a_loop(task):
    found = small(task)
    weights = torch.cat([p.detach().flatten() for p in found.model.parameters()]).numpy()
    rows = np.stack([weights, 0.5 * weights, 0 * weights])
    expected = []
    for row in rows:
        with torch.no_grad():
            first, last = torch.tensor(row[:12]).reshape(3, 4), torch.tensor(row[12:]).reshape(-1, 3)
            outputs = [last @ torch.tanh(first @ x) for x in found.test.x.double()]
        if task == "classes":
            hits = [int(o.argmax()) == int(y) for o, y in zip(outputs, found.test.y, strict=True)]
            expected.append(100 * sum(hits) / len(hits))
        else:
            errors = [float(o - y) ** 2 for o, y in zip(outputs, found.test.y, strict=True)]
            expected.append(2.0 * (sum(errors) / len(errors)) ** 0.5)
    assert quality(found, rows) == pytest.approx(expected, abs=1e-9)
    noisy = surface(found, rows, draws=40, seed=0)
    assert noisy.mean[:, 0] == pytest.approx(expected, rel=1e-5)
    assert noisy.spread[:, 0] == pytest.approx(0, abs=1e-4)
    assert noisy.distortion[:2, 0] == pytest.approx(0)
    assert np.isnan(noisy.distortion[2]).all()  # constant
    assert (np.diff(noisy.distortion[0]) > 0).all()
    assert noisy.mean.shape == (3, len(NOISE))


@pytest.mark.slow
def test_ways_remove_as_many_as_they_say_one_within_the_next():
    removals = Removals(small(), seed=0)
    for way in WAYS.values():
        zero = way(removals) == 0
        assert zero.sum(axis=1).tolist() == removals.counts
        assert (zero[:-1] <= zero[1:]).all()


def test_an_order_is_followed_from_its_beginning():
    removals = Removals(small("classes"), seed=0)
    rows = dropped(removals, np.arange(21)[::-1])[[0, 5, 50]]
    assert [np.flatnonzero(row == 0).tolist() for row in rows] == [[], [19, 20], list(range(21))]


def test_signed_saliencies_let_what_curves_downwards_go_first():
    found = small("classes")
    weights = torch.cat([p.detach().flatten() for p in found.model.parameters()])

    def loss(flat):
        first, last = flat[:12].reshape(3, 4), flat[12:].reshape(3, 3)
        return torch.nn.functional.cross_entropy(torch.tanh(found.train.x.double() @ first.T) @ last.T, found.train.y)

    saliency = torch.autograd.functional.hessian(loss, weights).diagonal() * weights.square()
    assert float(saliency.min()) < 0
    rows = obd_signed(Removals(found, seed=0))
    for count in (2, 6, 12):
        row = next(row for row in rows if (row == 0).sum() >= count)
        gone = np.flatnonzero(row == 0)
        assert set(gone) == set(saliency.argsort()[: len(gone)].tolist())


def test_rounds_of_one_posterior_are_one_path():
    generator = np.random.default_rng(0)
    factor, mean = generator.normal(size=(12, 8)), generator.normal(size=8)
    rounds = list(surgeon_rounds(mean, lambda weights: factor, [0, 2, 2, 5], share=0.3))
    order, shifted = surgeon_path(mean, factor.T @ factor, 0.3, 5)
    assert rounds[-1][0] == pytest.approx(shifted, abs=1e-12)
    assert sorted(order[5:]) == rounds[-1][1].tolist()
    assert rounds[0][0] == pytest.approx(mean)


@pytest.mark.slow
def test_data_are_those_of_the_paper():
    shapes = {name: table(name)[0].shape for name in ("wine", "boston")}
    assert shapes == {"wine": (178, 13), "boston": (506, 13)}
    assert table("boston")[1].std() == pytest.approx(9.188, abs=1e-3)


def test_designs_of_the_synthetic_data():
    printed, fitting = (subject(PROBLEMS[f"synthetic-{name}"], 0) for name in ("printed", "fitting"))
    assert torch.equal(printed.test.y, printed.test.x[:, :1])
    covariance = np.linalg.inv(printed.precision.T @ printed.precision)
    assert covariance[[0, 0, 1, 5], [0, 3, 2, 5]] == pytest.approx([1, 1e-3, 0.95, 1])
    whole = fitting.model[0].weight.detach().numpy()
    assert quality(fitting, whole)[0] == pytest.approx(PAPER.quality["Data1"]["random"][0], rel=0.25)
    assert quality(printed, printed.model[0].weight.detach().numpy())[0] > 1


def made_up(seeds=6, lead=10.0):
    """Results in which every way leaves its margin at 50 %, the surgeon `lead` later."""
    generator, found = random.Random(0), {}
    for name, problem in PROBLEMS.items():
        for seed in range(seeds):
            ways = {}
            for way in [each.name for each in VARIANTS] if problem.choosing else WAYS:
                end = 50 + (lead if way == "surgeon" else 0) + generator.choice([-2, 0, 2])
                curve = [90.0 if level <= end else (50.0 if problem.task == "classes" else 200.0) for level in LEVELS]
                grid = [[generator.random() for _ in NOISE] for _ in LEVELS]
                ways[way] = {"quality": curve, "mean": grid, "spread": grid, "distortion": grid}
            found[name, seed] = {"ways": ways, "weights": 200, "seconds": 1.0}
    return found


@pytest.mark.parametrize(("lead", "words"), [(10.0, "holds"), (-10.0, "the opposite holds")])
def test_verdicts_follow_from_the_numbers(lead, words):
    results = made_up(lead=lead)
    built = record.build(results, Settings(seeds=6))
    claim = next(each for each in findings.claims(built) if each.pair == "surgeon - obd")
    assert findings.decided(built, claim)[1] == words
    sample = Sample(WINE, [result for (name, _), result in results.items() if name == "wine"])
    each = [removable(WINE, r["ways"]["surgeon"]["quality"]) - removable(WINE, r["ways"]["obd"]["quality"])
            for r in sample.results]  # fmt: skip
    assert difference(sample, "kept", "surgeon", "obd")["value"] == pytest.approx(sum(each) / 6)
    held = 4 if lead > 0 else 0
    assert any(f"than {held} of the paper’s 4 methods" in text for text in findings.sentences(built))
    assert len(tables.said(built).rows) == len(findings.claims(built))


@pytest.mark.slow
def test_too_few_seeds_claim_nothing():
    built = record.build(made_up(seeds=3), Settings(seeds=3))
    assert {findings.decided(built, claim)[1] for claim in findings.claims(built)} == {"not shown"}


def test_what_is_asked_for_by_name(tmp_path):
    assert [problem.name for problem in settings(problems=("boston", "wine")).problems] == ["wine", "boston"]
    whole = settings(seeds=4).tasks()
    assert sum(task.problem.choosing for task in whole) == 6
    assert {task.draws for task in whole if task.problem.choosing} == {0}
    assert not any(task.problem.choosing for task in settings(quick=True).tasks())
    with pytest.raises(DataError, match="unknown problem 'iris'"):
        settings(problems=("iris",))


@pytest.mark.slow
def test_the_command_refuses(tmp_path):
    assert_refused(pared("replicate", "belsley", "--problems", "iris", "--out", tmp_path / "new"), "unknown", "wine")
    assert_refused(pared("replicate", "belsley", "--seeds", "0", "--out", tmp_path / "new"), "at least 1 seed")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_stopped_study_goes_on_and_finds_the_same(tmp_path, monkeypatch):
    wanted = Settings((replace(WINE, hidden=2),), seeds=2, draws=3)

    def stopping(task):
        if task.seed == 1:
            raise KeyboardInterrupt
        return run(task)

    parts.open_folder(tmp_path / "study", wanted.as_dict())
    monkeypatch.setattr(folder, "run", stopping)
    with pytest.raises(KeyboardInterrupt):
        work(tmp_path / "study", wanted, 1)
    said = belsley.report(tmp_path / "study", wanted)
    assert any("Unfinished: 1 of 2" in line for line in said)
    monkeypatch.setattr(folder, "run", run)
    work(tmp_path / "study", wanted, 1)
    found = finished(tmp_path / "study", wanted)
    again = run(Task(wanted.problems[0], 0, 3))
    assert again["ways"] == found["wine", 0]["ways"]
    curves = {way: part["quality"] for way, part in again["ways"].items()}
    assert len({tuple(curve) for curve in curves.values()}) > 8
    assert {curve[0] for curve in curves.values()} == {curves["obd"][0]}
    assert curves["obd"][0] > 80


@pytest.mark.slow
def test_the_page_holds_every_table_and_figure():
    built = record.build(made_up(), Settings(seeds=6))
    html = page.page(built)
    assert html == page.page(built)
    assert html.count("<figure ") == 17
    assert "http:" not in html.replace("http://www.w3.org", "")
    assert all(word in html for word in ("Breast".lower(), "Boston", "figure 7", "Table 1", "the opposite holds"))
