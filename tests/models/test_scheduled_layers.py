"""Mollified layers, stochastic depth and snapshot ensembles: their exact laws."""

import pytest
import torch
from torch import nn

from pared.models import Mollified, MollifiedGRU, MollifiedLSTM, StochasticDepth, survivals
from pared.schedules import Constant
from pared.training import Bound, Ensemble, TrainConfig, snapshots
from pared.types import Batch

EXACT = {"rtol": 0, "atol": 1e-12}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def test_mollified_is_the_identity_then_a_mix_then_the_layer():
    x, layer = drawn(5, 4), nn.Sequential(nn.Linear(4, 4), nn.Sigmoid()).double()
    assert torch.equal(Mollified(layer, 1.0)(x), x)
    assert torch.equal(Mollified(layer, 0.0)(x), layer(x))
    torch.testing.assert_close(Mollified(layer, 0.3).eval()(x), 0.3 * x + 0.7 * layer(x), **EXACT)


def test_in_training_each_unit_is_its_input_or_the_layer_in_the_given_share():
    x, layer = drawn(4000, 4), nn.Linear(4, 4).double()
    out, full = Mollified(layer, 0.3)(x), layer(x)
    passed = out == x
    assert torch.equal(out, torch.where(passed, x, full))
    assert passed.double().mean().item() == pytest.approx(0.3, abs=0.02)


def test_at_full_noise_the_lstm_cell_is_the_running_mean_of_its_candidates():
    layer, x = MollifiedLSTM(2, 3).double(), drawn(4, 7, 2)
    out, _ = layer(x)
    w = dict(layer.lstm.named_parameters())
    candidates, h, rows = [], torch.zeros(4, 3, dtype=torch.float64), slice(6, 9)
    for t in range(7):
        inner = x[:, t] @ w["weight_ih_l0"][rows].T + w["bias_ih_l0"][rows]
        candidates.append((inner + h @ w["weight_hh_l0"][rows].T + w["bias_hh_l0"][rows]).tanh())
        h = torch.stack(candidates).mean(0).tanh()
        torch.testing.assert_close(out[:, t], h, **EXACT)
        torch.testing.assert_close(layer(x[:, : t + 1])[1], torch.stack(candidates).mean(0), **EXACT)


def test_at_full_noise_the_gru_state_is_the_running_mean_of_its_candidates():
    layer, x = MollifiedGRU(2, 3).double(), drawn(4, 7, 2)
    out, _ = layer(x)
    w = dict(layer.gru.named_parameters())
    candidates, h, rows = [], torch.zeros(4, 3, dtype=torch.float64), slice(6, 9)
    for t in range(7):
        inner = x[:, t] @ w["weight_ih_l0"][rows].T + w["bias_ih_l0"][rows]
        candidates.append((inner + h @ w["weight_hh_l0"][rows].T + w["bias_hh_l0"][rows]).tanh())
        h = torch.stack(candidates).mean(0)
        torch.testing.assert_close(out[:, t], h, **EXACT)


@pytest.mark.parametrize("kind", [MollifiedLSTM, MollifiedGRU])
def test_without_noise_the_loop_is_the_plain_layer(kind):
    layer, x = kind(2, 3).double(), drawn(4, 7, 2)
    layer.p = 0.0
    plain = layer(x)
    layer.p = 1e-15
    for looped, fused in zip(layer(x), plain, strict=True):
        torch.testing.assert_close(looped, fused, **EXACT)


def test_stochastic_depth_skips_in_training_and_weighs_else():
    x, block = drawn(5, 4), nn.Linear(4, 4).double()
    layer = StochasticDepth(block, 0.3)
    outs = [layer(x) for _ in range(2000)]
    skipped = [torch.equal(out, x) for out in outs]
    assert all(skip or torch.equal(out, x + block(x)) for out, skip in zip(outs, skipped, strict=True))
    assert sum(skipped) / len(skipped) == pytest.approx(0.7, abs=0.04)
    torch.testing.assert_close(layer.eval()(x), x + 0.3 * block(x), **EXACT)
    assert survivals(4) == (0.875, 0.75, 0.625, 0.5)


def test_snapshots_train_on_and_their_ensemble_is_the_mean():
    split = type(
        "Data", (), {"train": Batch(torch.randn(16, 3), torch.randn(16, 2)), "validation": Batch(*[torch.zeros(0)] * 2)}
    )
    config = TrainConfig(epochs=6, batch_size=4)
    fits = snapshots(nn.Linear(3, 2), split, config, 3)
    x = torch.randn(5, 3)
    outs = torch.stack([fit.model(x) for fit in fits])
    assert [int(fit.optimiser_state["state"][0]["step"]) for fit in fits] == [8, 16, 24]
    torch.testing.assert_close(Ensemble([fit.model for fit in fits])(x), outs.mean(0))
    logits = Ensemble([fit.model for fit in fits], classes=True)(x)
    torch.testing.assert_close(logits.softmax(-1), outs.softmax(-1).mean(0))
    with pytest.raises(ValueError, match="equal cycles"):
        snapshots(nn.Linear(3, 2), split, config, 4)
    with pytest.raises(ValueError, match="bound"):
        snapshots(nn.Linear(3, 2), split, TrainConfig(epochs=6, bound=(Bound("weight_decay", Constant(0.1)),)), 3)
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble([])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Mollified(nn.Linear(2, 2), 1.2),
        lambda: MollifiedLSTM(2, 2, -0.1),
        lambda: StochasticDepth(nn.Linear(2, 2), 2.0),
        lambda: survivals(0),
    ],
)
def test_what_is_no_probability_is_refused(make):
    with pytest.raises(ValueError, match="from 0 to 1"):
        make()


def test_a_layer_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="keeps the shape"):
        Mollified(nn.Linear(3, 2), 0.5)(torch.zeros(1, 3))
