"""Criteria of whole layers against their formulas, and the loop that takes layers out."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from networks import snapshot, unchanged
from pared import criteria
from pared.criteria.layers import unbiased_cka
from pared.lean import Part, fit_watching_layers, shed_layers
from pared.models import Forecaster
from pared.schedules import Cosine
from pared.surgery import StructureError, drop_layer, droppable, replay
from pared.training import TrainConfig, fit
from pared.types import Batch

SLOW = pytest.mark.slow
LAYERS = ["block_influence", "cka", "layer_ablation", "probe_gain", "reinitialisation", "replaceability"]


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(self.norm(x))))


def seeded(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().double()


def deep(width=6):
    return seeded(
        lambda: nn.Sequential(
            nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, 2),
        )
    )  # fmt: skip


def residual():
    return seeded(lambda: nn.Sequential(nn.Linear(4, 5), Block(5), Block(5), nn.Linear(5, 2)))


def recurrent():
    return Forecaster(1, (4, 4, 3), (), init="torch").double()


NETWORKS = {"deep": deep, "residual": residual, "recurrent": recurrent}


def data(name, samples=60, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (samples, 5, 1) if name == "recurrent" else (samples, 4)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return Batch(x, torch.randn(samples, 1 if name == "recurrent" else 2, generator=generator, dtype=torch.float64))


def test_what_can_be_dropped():
    assert droppable(deep(), data("deep").x) == ("0", "2", "4")
    assert droppable(residual(), data("residual").x) == ("1", "1.up", "2", "2.up")
    assert droppable(recurrent(), data("recurrent").x) == ("recurrent.0", "recurrent.1", "recurrent.2")


@pytest.mark.parametrize(
    "name", ["deep", *(pytest.param(n, marks=pytest.mark.slow) for n in ("residual", "recurrent"))]
)
@pytest.mark.parametrize("criterion", LAYERS)
def test_laws(criterion, name):
    model, batch = NETWORKS[name](), data(name)
    before, state = snapshot(model), torch.get_rng_state().clone()
    scores = getattr(criteria, criterion)(model, batch, mse_loss)
    unchanged(before, model)
    assert torch.equal(state, torch.get_rng_state())
    assert scores
    assert scores.keys() <= set(droppable(model, batch.x))
    assert all(value.shape == () and value.isfinite() and not value.requires_grad for value in scores.values())
    again = getattr(criteria, criterion)(model, batch, mse_loss)
    assert all(torch.equal(scores[layer], again[layer]) for layer in scores)


def test_replaceability_is_the_residual_of_the_best_linear_map():
    model, batch = deep(), data("deep")
    found = criteria.replaceability(model, batch, mse_loss, ridge=1e-12)
    x, model = batch.x, model.requires_grad_(False)
    for k, layer in ((0, "0"), (2, "2"), (4, "4")):
        enters, leaves = model[:k](x), model[: k + 2](x)
        z = leaves @ model[k + 2].weight.T
        design = torch.cat([enters, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
        fit = design @ torch.linalg.lstsq(design, z).solution
        expected = (z - fit).square().sum() / (z - z.mean(0)).square().sum()
        assert float(found[layer]) == pytest.approx(float(expected), rel=1e-6)


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
    leaves = model[1](enters).detach()
    cosines = [float(a @ b / (a.norm() * b.norm())) for a, b in zip(enters, leaves, strict=True)]
    found = criteria.block_influence(model, batch, mse_loss)
    assert float(found["1"]) == pytest.approx(1 - sum(cosines) / len(cosines), rel=1e-9)


def naive_cka(x, y):
    n = len(x)
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    one = np.ones(n)

    def h(a, b):
        trace = np.trace(a @ b)
        both = (one @ a @ one) * (one @ b @ one) / ((n - 1) * (n - 2))
        return (trace + both - 2 / (n - 2) * (one @ a @ b @ one)) / (n * (n - 3))

    return h(k, m) / np.sqrt(h(k, k) * h(m, m))


def test_unbiased_cka():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 6))
    y[:, :4] += x
    found = float(unbiased_cka(torch.tensor(x), torch.tensor(y)))
    assert found == pytest.approx(naive_cka(x.copy(), y.copy()), rel=1e-10)
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
    whole = Part(Cosine(), 0.4, 0.8)
    assert [whole(p) for p in (0.0, 0.5, 1.0)] == [Cosine()(p) for p in (0.4, 0.6000000000000001, 0.8)]


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


def test_nothing_is_shed_where_nothing_may_be_lost():
    split = problem()
    full = fit(deep().float(), split, TrainConfig(epochs=20, lr=1e-2))
    lean = shed_layers(full, split, TrainConfig(epochs=1, lr=1e-9), limit=lambda error: error / 100)
    assert lean.dropped == ()
    assert lean.fit is full
