"""Criteria that score units by norms, switching, predicted loss, redundancy and greedy removal, against slow twins."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import mse_loss

import reference
import reference_units as slow
from networks import batch, forecaster, mlp
from pared import criteria
from pared.compensate import compensate
from pared.criteria.redundancy import draw_diverse
from pared.merging import entries, merge
from pared.signals import read_values
from pared.surgery import Plan, Structure, StructureError, cut, mask, trace
from pared.types import Batch

NETWORKS = {"mlp": mlp, **{cell: partial(forecaster, cell) for cell in ("lstm", "gru", "rnn")}}
each_network = pytest.mark.parametrize("name", NETWORKS)


def order_of(scores):
    """Units in the order in which they go."""
    return scores.argsort(stable=True).tolist()


@each_network
@pytest.mark.parametrize("side", ["in", "out"])
def test_norm_is_the_mean_entry_by_entry(name, side):
    model = NETWORKS[name]()
    structure = trace(model, batch(model).x)
    scores = criteria.norm(model, batch(model), mse_loss, side=side)
    for group, values in slow.norm(model, structure, side).items():
        assert scores[group].tolist() == pytest.approx(values, rel=1e-12)


def test_norm_with_spread_does_not_depend_on_the_scale_of_a_relu_layer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    data = Batch(torch.randn(20, 3).double(), torch.randn(20, 2).double())
    scaled = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    scaled.load_state_dict(model.state_dict())
    factor = torch.tensor([0.1, 1.0, 3.0, 7.0, 50.0], dtype=torch.float64)
    with torch.no_grad():
        scaled[0].weight.mul_(factor[:, None])
        scaled[0].bias.mul_(factor)
        scaled[2].weight.div_(factor)
    one, two = (criteria.norm(m, data, mse_loss, spread=True)["0"] for m in (model, scaled))
    torch.testing.assert_close(one, two)
    assert not torch.allclose(*(criteria.norm(m, data, mse_loss)["0"] for m in (model, scaled)))


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_entropy_counts_the_share_above_the_threshold(threshold):
    model, data = mlp(), batch(mlp(), 50)
    structure = trace(model, data.x)
    values = read_values(model, structure, data.x)["second.weight"]  # what reads the group "first"
    found = criteria.entropy(model, data, mse_loss, threshold=threshold)["first"]
    assert found.tolist() == pytest.approx(slow.entropy(values.numpy(), threshold), rel=1e-12)


@each_network
def test_predicted_ablation_is_the_taylor_series(name):
    model = NETWORKS[name]()
    data = batch(model)
    first = criteria.predicted_ablation(model, data, mse_loss, order=1)
    second = criteria.predicted_ablation(model, data, mse_loss, order=2)
    for group, values in slow.derivatives(model, trace(model, data.x), data, mse_loss).items():
        assert first[group].tolist() == pytest.approx([-g for g, _ in values], rel=1e-4, abs=1e-7)
        assert second[group].tolist() == pytest.approx([-g + h / 2 for g, h in values], rel=1e-4, abs=1e-6)


def test_a_quadratic_loss_of_the_last_layer_is_predicted_exactly():
    model, data = mlp(), batch(mlp())
    last = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    del model
    exact, predicted = criteria.ablation(last, data, mse_loss), criteria.predicted_ablation(last, data, mse_loss)
    torch.testing.assert_close(predicted["0"], exact["0"], rtol=1e-10, atol=1e-12)


@each_network
def test_similarity_deletes_as_the_whole_table_says(name):
    model = NETWORKS[name]()
    structure = trace(model, batch(model).x)
    scores = criteria.similarity(model, batch(model), mse_loss)
    weights = {n: p.detach() for n, p in model.named_parameters()}
    for group in structure:
        sides = [entries(group, weights, role).numpy() for role in ("in", "out")]
        order = [j for j, _ in slow.merged_order(*sides)]
        assert order_of(scores[group.name])[:-1] == order


@pytest.mark.parametrize("build", [mlp, forecaster, partial(forecaster, "gru")])
def test_merging_a_twin_changes_nothing(build):
    model = build()
    data = batch(model)
    group = trace(model, data.x).groups[0]
    tensors = dict(model.named_parameters())
    with torch.no_grad():
        for s in sorted(group.slices, key=lambda s: s.role == "in"):  # unit 2 is made as unit 0 is
            if s.role == "in":
                weight = tensors[s.parameter].movedim(s.axis, 0)
                weight[s.indices(group.width, [2])] = weight[s.indices(group.width, [0])]
    structure = trace(model, data.x)
    scores = criteria.similarity(model, data, mse_loss)[group.name]
    gone = int(scores.argmin())
    assert gone in (0, 2)
    plan = structure.bind(Plan({group.name: tuple(j for j in range(group.width) if j != gone)}))
    small = cut(merge(model, structure, plan), structure, plan)
    torch.testing.assert_close(small(data.x), model(data.x), rtol=1e-12, atol=1e-12)


def test_merge_follows_the_pairs_also_through_units_that_go_later():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    structure = trace(model, torch.randn(2, 3).double())
    merged = merge(model, structure, Plan({"0": (3,)}))
    made = torch.cat([model[0].weight, model[0].bias[:, None]], dim=1).detach()
    read = model[2].weight.detach().T.clone()
    left = [0, 1, 2, 3]
    while left != [3]:
        pairs = {(i, j): float((read[j] ** 2).mean() * ((made[i] - made[j]) ** 2).sum())
                 for i in left for j in left if j != i and j != 3}  # fmt: skip
        i, j = min(pairs, key=pairs.get)
        read[i] += read[j]
        left.remove(j)
    torch.testing.assert_close(merged[2].weight.detach()[:, 3], read[3])


@each_network
def test_least_squares_eliminates_what_the_normal_equations_say(name):
    model = NETWORKS[name]()
    data = batch(model, 60)
    structure = trace(model, data.x)
    group = structure["head.0" if name != "mlp" else "first"]
    values = read_values(model, structure, data.x)
    (reader,) = [s.parameter for s in group.slices if s.role == "out"]
    weight = dict(model.named_parameters())[reader].detach().numpy()
    second = np.cov(values[reader].numpy().T, bias=True)
    second += 1e-8 * np.mean(np.diag(second)) * np.eye(len(second))
    scores = criteria.least_squares(model, data, mse_loss)[group.name]
    assert order_of(scores)[:-1] == slow.eliminated(weight, second)


def test_least_squares_of_a_recurrent_layer_sums_both_readers():
    model = forecaster("lstm")
    data = batch(model, 40)
    structure = trace(model, data.x)
    group = structure["recurrent.0.l0"]
    values = read_values(model, structure, data.x)
    own, after = values["recurrent.0.weight_hh_l0"].numpy(), values["recurrent.1.weight_ih_l0"].numpy()
    seconds = [own.T @ own / len(own), np.cov(after.T, bias=True)]
    seconds = [s + 1e-8 * np.mean(np.diag(s)) * np.eye(len(s)) for s in seconds]
    parameters = dict(model.named_parameters())
    weights = [parameters[n].detach().numpy() for n in ("recurrent.0.weight_hh_l0", "recurrent.1.weight_ih_l0")]
    pairs, gone = list(zip(weights, seconds, strict=True)), []
    while len(gone) < group.width - 1:
        rest = [j for j in range(group.width) if j not in gone]
        gone.append(min(rest, key=lambda j: sum(slow.residual(w, s, [*gone, j]) for w, s in pairs)))
    assert order_of(criteria.least_squares(model, data, mse_loss)[group.name])[:-1] == gone


def test_least_squares_needs_a_weight_that_can_be_refitted():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3))

        def forward(self, x):
            return (x @ self.weight.T).tanh() @ self.weight

    with pytest.raises(StructureError, match="refitted"):
        criteria.least_squares(Tied(), Batch(torch.randn(5, 3), torch.randn(5, 3)), mse_loss)


@pytest.mark.parametrize("repair", [True, False])
@pytest.mark.parametrize("name", ["mlp", "lstm"])
def test_greedy_takes_the_unit_of_least_loss_every_time(name, repair):
    model = NETWORKS[name]()
    data = batch(model, 8)
    structure = trace(model, data.x)
    scores = criteria.greedy(model, data, mse_loss, repair=repair)
    group = structure.groups[0]
    alone, gone = Structure((group,)), []
    while len(gone) < group.width - 1:
        losses = {}
        for j in set(range(group.width)) - set(gone):
            plan = Plan({group.name: tuple(k for k in range(group.width) if k not in (*gone, j))})
            repaired = compensate(model, alone, plan, data) if repair else model
            losses[j] = float(mse_loss(mask(repaired, alone, plan)(data.x), data.y))
        gone.append(min(losses, key=losses.get))
    assert order_of(scores[group.name])[:-1] == gone


@pytest.mark.parametrize("criterion", [criteria.magnitude, criteria.ablation])
def test_reranking_masks_and_scores_again(criterion):
    model, data = mlp(), batch(mlp(), 8)
    structure = trace(model, data.x)
    scores = criteria.reranked(model, data, mse_loss, criterion=criterion)
    left = {group.name: list(range(group.width)) for group in structure}
    masked, gone = model, []
    while any(len(units) > 1 for units in left.values()):
        found = criterion(masked, data, mse_loss)
        found = found if "first" in found else reference.by_unit(found, structure)
        _, name, unit = min((float(found[n][j]), n, j) for n in left if len(left[n]) > 1 for j in left[n])
        gone.append((name, unit))
        left[name].remove(unit)
        masked = mask(model, structure, Plan({n: tuple(units) for n, units in left.items()}))
    found = sorted((float(scores[n][j]), n, j) for n in scores for j in range(len(scores[n])))
    assert [(n, j) for _, n, j in found[: len(gone)]] == gone


def test_determinantal_joins_the_unit_that_raises_the_determinant_most():
    model, data = mlp(), batch(mlp(), 30)
    values = read_values(model, trace(model, data.x), data.x)["second.weight"].numpy().T
    distances = ((values[:, None] - values[None]) ** 2).sum(axis=2)
    kernel = np.exp(-10 / values.shape[1] * distances) + 0.01 * np.eye(len(values))
    scores = criteria.determinantal(model, data, mse_loss)["first"]
    assert order_of(scores)[::-1] == slow.greedy_subset(kernel)


@settings(deadline=None, max_examples=3)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_the_sampler_draws_subsets_as_often_as_their_determinants_say(seed, k):
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(4, 4))
    kernel = factor @ factor.T + 0.1 * np.eye(4)
    draws = 1000
    counts = Counter(tuple(draw_diverse(kernel, k, rng)) for _ in range(draws))
    for subset, probability in slow.k_dpp(kernel, k).items():
        spread = np.sqrt(probability * (1 - probability) / draws)
        assert abs(counts[subset] / draws - probability) < 6 * spread + 1e-9


def test_the_sampler_refuses_what_cannot_be():
    with pytest.raises(ValueError, match="sample of 5 of 4"):
        draw_diverse(np.eye(4), 5, np.random.default_rng(0))


def test_a_large_kernel_neither_overflows_nor_repeats():
    values = np.random.default_rng(0).normal(size=(300, 5))
    kernel = np.exp(-((values[:, None] - values[None]) ** 2).sum(2)) + 0.01 * np.eye(300)
    chosen = draw_diverse(kernel, 150, np.random.default_rng(1))
    assert len(set(chosen)) == 150


def test_oracle_8_fusing_is_the_direct_least_squares():
    """Without an intercept, what is read of the units drawn approximates best what was read of all."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 3, bias=False)).double()
    x = torch.randn(60, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    drawn = criteria.sample_diverse(model, Batch(x, x[:, :3]), mse_loss)["0"].bool()
    kept = drawn.nonzero().flatten().tolist()
    plan = Plan({"0": tuple(kept)})
    fused = compensate(model, trace(model, x), plan, x, ridge=1e-15)[2].weight.detach()[:, kept]
    values = model[:2](x).detach()
    direct = torch.linalg.lstsq(values[:, kept], values @ model[2].weight.detach().T).solution.T
    torch.testing.assert_close(fused, direct, rtol=1e-8, atol=1e-10)


def test_sampled_units_follow_the_seed_and_the_share():
    model, data = mlp(), batch(mlp())
    one, two = (criteria.sample_diverse(model, data, mse_loss, keep=0.6, seed=3) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert {name: int(values.sum()) for name, values in one.items()} == {"first": 2, "second": 3}
