"""Criteria of whole layers against their formulas, and the loop that takes layers out."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

import reference_layers as slow
from deep_networks import NETWORKS, convolutional, data, deep, recurrent, residual, seeded
from networks import snapshot, unchanged
from pared import criteria
from pared.criteria.layers import unbiased_cka
from pared.lean import fit_watching_layers, shed_layers
from pared.schedules import Cosine
from pared.surgery import StructureError, drop_layer, droppable, replay
from pared.training import TrainConfig, fit
from pared.types import Batch

LAYERS = [
    "block_influence", "cka", "layer_ablation", "learned_gate", "probe_gain", "recovery", "reinitialisation",
    "replaceability",
]  # fmt: skip


def test_what_can_be_dropped():
    assert droppable(deep(), data("deep").x) == ("0", "2", "4")
    assert droppable(residual(), data("residual").x) == ("1", "1.up", "2", "2.up")
    assert droppable(convolutional(), data("convolutional").x) == ("1", "2")
    assert droppable(recurrent(), data("recurrent").x) == ("recurrent.0", "recurrent.1", "recurrent.2")


@pytest.mark.parametrize(
    "name",
    ["deep", *(pytest.param(n, marks=pytest.mark.slow) for n in ("residual", "convolutional", "recurrent", "gru"))],
)
@pytest.mark.parametrize("criterion", LAYERS)
def test_laws(criterion, name):
    model = recurrent("gru") if name == "gru" else NETWORKS[name]()
    batch = data("recurrent" if name == "gru" else name)
    before, state = snapshot(model), torch.get_rng_state().clone()
    scores = getattr(criteria, criterion)(model, batch, mse_loss)
    unchanged(before, model)
    assert torch.equal(state, torch.get_rng_state())
    assert scores
    assert scores.keys() <= set(droppable(model, batch.x))
    assert all(value.shape == () and value.isfinite() and not value.requires_grad for value in scores.values())
    again = getattr(criteria, criterion)(model, batch, mse_loss)
    assert all(torch.equal(scores[layer], again[layer]) for layer in scores)


def rows_of(model):
    """What enters and leaves each hidden layer of `deep`, and what its reader makes."""
    batch = data("deep")
    with torch.no_grad():
        for k in (0, 2, 4):
            enters, leaves = model[:k](batch.x), model[: k + 2](batch.x)
            yield str(k), enters.numpy(), leaves.numpy(), (leaves @ model[k + 2].weight.T).numpy()


def test_replaceability_is_the_residual_of_the_best_linear_map():
    model = deep()
    found = criteria.replaceability(model, data("deep"), mse_loss, ridge=1e-3)
    for layer, enters, _, made in rows_of(model):
        assert float(found[layer]) == pytest.approx(slow.unexplained(enters, made, 1e-3), rel=1e-10)


def test_cka_compares_what_enters_with_what_leaves():
    model = deep()
    found = criteria.cka(model, data("deep"), mse_loss)
    for layer, enters, leaves, _ in rows_of(model):
        assert float(found[layer]) == pytest.approx(1 - slow.cka(enters, leaves), rel=1e-10)


def test_probe_gain_is_a_ridge_regression_on_every_other_row():
    model, batch = deep(), data("deep")
    found = criteria.probe_gain(model, batch, mse_loss)
    for layer, enters, leaves, _ in rows_of(model):
        expected = slow.probe(leaves, batch.y.numpy()) - slow.probe(enters, batch.y.numpy())
        assert float(found[layer]) == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_reinitialisation_is_the_mean_loss_with_fresh_weights():
    model, batch = deep(), data("deep")
    found = criteria.reinitialisation(model, batch, mse_loss, draws=3, seed=7)
    whole = float(mse_loss(model(batch.x), batch.y).detach())
    for layer in (0, 2, 4):
        losses = []
        for draw in range(3):
            fresh = copy.deepcopy(model)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(7 + draw)
                fresh[layer].reset_parameters()
            losses.append(float(mse_loss(fresh(batch.x), batch.y).detach()))
        assert float(found[str(layer)]) == pytest.approx(sum(losses) / 3 - whole, rel=1e-10, abs=1e-14)


def test_a_linear_layer_and_an_idle_block_score_nothing():
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 5), nn.Identity(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2)))
    found = criteria.replaceability(model, data("deep"), mse_loss)
    assert float(found["0"]) < 1e-5 < float(found["2"])
    blocks = residual()
    nn.init.zeros_(blocks[2].down.weight)
    nn.init.zeros_(blocks[2].down.bias)
    for criterion in (criteria.replaceability, criteria.block_influence, criteria.cka, criteria.layer_ablation):
        scores = criterion(blocks, data("residual"), mse_loss)
        assert abs(float(scores["2"])) < 1e-9 < abs(float(scores["1"])), criterion.__name__


def test_block_influence_row_by_row():
    model, batch = residual(), data("residual")
    enters = model[0](batch.x).detach()
    found = criteria.block_influence(model, batch, mse_loss)
    expected = slow.block_influence(enters.numpy(), model[1](enters).detach().numpy())
    assert float(found["1"]) == pytest.approx(expected, rel=1e-10)


def test_a_row_of_an_image_is_a_place_with_its_channels():
    model, batch = convolutional(), data("convolutional")
    enters = model[0](batch.x).detach()
    pair = (t.movedim(1, -1).flatten(0, -2).numpy() for t in (enters, model[1](enters).detach()))
    found = criteria.block_influence(model, batch, mse_loss)
    assert float(found["1"]) == pytest.approx(slow.block_influence(*pair), rel=1e-10)


def test_unbiased_cka():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 6))
    y[:, :4] += x
    found = float(unbiased_cka(torch.tensor(x), torch.tensor(y)))
    assert found == pytest.approx(slow.cka(x.copy(), y.copy()), rel=1e-10)
    rotation = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    assert float(unbiased_cka(torch.tensor(x), torch.tensor(3 * x @ rotation))) == pytest.approx(1)
    noise = [float(unbiased_cka(*torch.randn(2, 20, 50, dtype=torch.float64))) for _ in range(200)]
    assert abs(np.mean(noise)) < 0.02  # the biased estimator gives 0.7 here
    with pytest.raises(ValueError, match="at least 4 rows, got 3"):
        unbiased_cka(torch.ones(3, 2), torch.ones(3, 2))


def test_layer_ablation_is_the_loss_without_the_layer():
    model, batch = deep(), data("deep")
    model.requires_grad_(False)
    whole = mse_loss(model(batch.x), batch.y)
    for layer, value in criteria.layer_ablation(model, batch, mse_loss).items():
        small, _ = drop_layer(model, layer, batch.x)
        assert float(value) == pytest.approx(float(mse_loss(small(batch.x), batch.y) - whole), abs=1e-12)


def test_recovery_is_the_loss_that_training_leaves():
    model, batch = deep(), data("deep")
    whole = mse_loss(model(batch.x), batch.y).item()
    untrained = criteria.recovery(model, batch, mse_loss, epochs=1, lr=1e-12)
    trained = criteria.recovery(model, batch, mse_loss, epochs=20)
    empty = Parts(batch, Batch(batch.x[:0], batch.y[:0]))
    for layer, added in criteria.layer_ablation(model, batch, mse_loss).items():
        assert float(untrained[layer]) == pytest.approx(float(added), rel=1e-6)
        small, _ = drop_layer(model, layer, batch.x)
        found = fit(small, empty, TrainConfig(epochs=20, lr=1e-2, batch_size=64))
        assert float(trained[layer]) == pytest.approx(mse_loss(found.model(batch.x), batch.y).item() - whole, abs=1e-9)
        assert trained[layer] < untrained[layer]


def test_probe_gain_sees_what_a_layer_makes_readable():
    torch.manual_seed(0)
    model = seeded(lambda: nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)))
    with torch.no_grad():  # the first layer makes |x_0|, the second one nothing new
        model[0].weight.zero_()
        model[0].weight[:2, 0] = torch.tensor([1.0, -1.0])
        model[2].weight.copy_(torch.eye(8))
        model[2].bias.fill_(0.1)
    x = torch.randn(400, 2, dtype=torch.float64)
    batch = Batch(x, (x[:, 0].abs() > 0.7).long())
    found = criteria.probe_gain(model, batch, cross_entropy)
    assert float(found["0"]) > 0.2
    assert abs(float(found["2"])) < 0.05


def test_networks_without_layers_are_refused():
    with pytest.raises(StructureError):
        criteria.replaceability(nn.Linear(3, 2), Batch(torch.randn(5, 3), torch.randn(5, 2)), mse_loss)


class Parts:
    def __init__(self, train, validation):
        self.train, self.validation = train, validation


def problem(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(240, 4, generator=generator)
    y = torch.stack([x[:, 0] - x[:, 1], torch.relu(x[:, 2])], dim=1)
    return Parts(Batch(x[:160], y[:160]), Batch(x[160:], y[160:]))


@pytest.mark.slow
def test_watched_training_is_training_and_means_are_running_means():
    model, split = deep().float(), problem()
    config = TrainConfig(epochs=10, lr=1e-2, schedule=Cosine())
    seen = []

    def criterion(model, batch, loss):
        seen.append(criteria.replaceability(model, batch, loss))
        return seen[-1]

    fitted, means = fit_watching_layers(model, split, config, criterion, every=4, decay=0.5)
    assert len(fitted.curves["train"]) == 10
    assert len(seen) == 3
    assert fitted.curves["train"][-1] < fitted.curves["train"][0]
    for name, mean in means.items():
        values = [float(scores[name]) for scores in seen]
        expected = (0.125 * values[0] + 0.25 * values[1] + 0.5 * values[2]) / 0.875
        assert float(mean) == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_shedding_keeps_the_error_and_its_plan_replays():
    split = problem()
    full = fit(deep().float(), split, TrainConfig(epochs=60, lr=1e-2))
    lean = shed_layers(full, split, TrainConfig(epochs=60, lr=1e-2), limit=lambda error: 1.5 * error + 1e-3)
    assert lean.dropped
    bound = 1.5 * full.curves["validation"][-1] + 1e-3
    assert all(error <= bound for error in lean.errors)
    again = replay(lean.plan, deep().float())
    again.load_state_dict(lean.fit.model.state_dict())
    assert torch.equal(again(split.validation.x), lean.fit.model(split.validation.x))


@pytest.mark.slow
def test_nothing_is_shed_where_nothing_may_be_lost():
    split = problem()
    full = fit(deep().float(), split, TrainConfig(epochs=20, lr=1e-2))
    lean = shed_layers(full, split, TrainConfig(epochs=1, lr=1e-9), limit=lambda error: error / 100)
    assert lean.dropped == ()
    assert lean.fit is full


@pytest.mark.parametrize("score", [torch.tensor(torch.nan), torch.ones(3)])
def test_scores_that_rank_nothing_are_refused(score):
    split = problem()
    full = fit(deep().float(), split, TrainConfig(epochs=1))
    with pytest.raises(ValueError, match=r"score of layer '2' is .*; it must be one number, and not NaN"):
        shed_layers(full, split, TrainConfig(epochs=1), lambda *_: {"2": score})
    with pytest.raises(StructureError, match="no module 'nowhere'"):
        shed_layers(full, split, TrainConfig(epochs=1), lambda *_: {"nowhere": torch.zeros(())})
