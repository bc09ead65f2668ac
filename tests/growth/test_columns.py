"""Progressive networks: the formula, old tasks kept to the bit, new columns that start as networks of their own."""

from functools import partial

import pytest
import torch
from torch import nn

import problems
from networks import snapshot, unchanged
from pared import MLP, Batch, Forecaster, TrainConfig, cut, fit, mask, select, trace
from pared.growth import Progressive, add_column
from problems import Data

CONFIG = TrainConfig(epochs=3, batch_size=16, seed=3, weight_decay=0.1)


drawn = partial(problems.drawn, dtype=torch.float64)


class Own(nn.Module):
    """Normalised, dropped out, recurrent: everything that could leak."""

    def __init__(self, seed: int = 0, width: int = 4) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.gru, self.norm = nn.GRU(1, width, batch_first=True), nn.BatchNorm1d(width)
            self.drop, self.dense, self.last = nn.Dropout(0.3), nn.Linear(width, 3), nn.Linear(3, 1)

    def forward(self, x):
        h = self.drop(self.norm(self.gru(x)[0][:, -1]))
        return self.last(torch.tanh(self.dense(h)))


KINDS = {
    "mlp": (lambda seed: MLP(6, (5, 4), 1, seed=seed), ("layers.2", "layers.4")),
    "lstm": (lambda seed: Forecaster(1, (5, 4), (3,), seed=seed), ("recurrent.1", "head.0", "head.1")),
    "gru": (lambda seed: Forecaster(1, (5, 4), (3,), cell="gru", seed=seed), ("recurrent.1", "head.0")),
    "own": (lambda seed: Own(seed, 4 + seed), ("dense", "last")),
}


def columns(kind, count=2):
    build, layers = KINDS[kind]
    model = Progressive(build(1).double(), layers)
    for seed in range(2, count + 1):
        model = add_column(model, build(seed).double(), drawn(4, 6, 1))
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_column_starts_as_its_network_alone_and_the_old_ones_stay(kind):
    build, _ = KINDS[kind]
    model, x = columns(kind, 3), drawn(8, 6, 1)
    for column in range(3):
        alone = build(column + 1).double().eval()
        torch.testing.assert_close(model(x, column), alone(x), rtol=1e-12, atol=1e-12)
    assert torch.equal(model(x), model(x, 2))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_old_tasks_are_kept_to_the_bit_whatever_the_new_column_learns(kind):
    first, x = columns(kind, 2), drawn(48, 6, 1)
    data = Data(Batch(x, x[:, -1].sin()), Batch(x[:8], x[:8, -1].sin()))
    second = fit(first, data, CONFIG).model  # the column that learns hears a frozen one
    third = add_column(second, KINDS[kind][0](3).double(), x[:2])
    learnt = fit(third, data, CONFIG).model.eval()
    for column, known in ((0, first), (1, second.eval())):
        assert torch.equal(learnt(x, column), known(x, column))
    assert not torch.equal(learnt(x), third.eval()(x))
    assert all((adapter.up.weight != 0).any() for adapter in learnt.adapters[2])


def test_the_formula_of_a_dense_column():
    model, x = columns("mlp", 3), drawn(7, 6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(drawn(*parameter.shape, seed=parameter.numel()))
    outputs, seen = [], {2: [], 4: []}
    for column, adapters in zip(model.columns, model.adapters, strict=True):
        h = x
        for index, name in enumerate((0, 2, 4)):
            layer, read = column.layers[name], h
            if name in seen:
                earlier = list(seen[name])
                seen[name].append(h)
                if earlier:
                    a = adapters[index - 1]
                    inner = a.down.weight @ (a.scale * torch.cat(earlier, 1)).T + a.down.bias[:, None]
                    read = h + (a.up.weight @ inner.clamp_min(0)).T
            h = read @ layer.weight.T + layer.bias
            h = h if name == 4 else h.tanh()
        outputs.append(h)
    for column, expected in enumerate(outputs):
        torch.testing.assert_close(model(x, column), expected, rtol=1e-10, atol=1e-10)


def test_adapters_learn_from_the_first_step_and_frozen_columns_never_do():
    model, x = columns("lstm").train(), drawn(8, 6, 1)
    model(x).square().sum().backward()
    assert all((adapter.up.weight.grad != 0).any() for adapter in model.adapters[1])
    assert all(parameter.grad is None for parameter in model.columns[0].parameters())


def test_nothing_passed_in_changes():
    model, network, x = columns("own"), Own(7).double(), drawn(8, 6, 1)
    before, state = (snapshot(model), snapshot(network)), torch.get_rng_state().clone()
    add_column(model, network, x)
    model(x)
    unchanged(before[0], model)
    unchanged(before[1], network)
    assert torch.equal(state, torch.get_rng_state())
    assert all(not module._forward_pre_hooks for module in (*model.modules(), *network.modules()))


@pytest.mark.slow
def test_columns_are_cut_like_any_network():
    model, x = columns("mlp", 2), drawn(4, 6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(drawn(*parameter.shape, seed=parameter.numel()))
    structure = trace(model, x)
    plan = select({"columns.0.layers.2": torch.arange(4.0), "adapters.1.1.up": torch.arange(4.0)}, structure, 0.5)
    torch.testing.assert_close(cut(model, structure, plan)(x), mask(model, structure, plan)(x), rtol=1e-12, atol=1e-12)
    assert cut(model, structure, plan).columns[0].layers[2].weight.shape == (2, 5)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense, self.idle = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.dense(self.dense(x.flatten(1)))


@pytest.mark.parametrize(("layers", "network", "message"), [
    (("layers.9",), MLP(6), r"no module 'layers\.9'"),
    (("layers.2",), nn.Sequential(nn.Linear(6, 1)), r"no module 'layers\.2'"),
    (("layers.2",), Forecaster(1, (3,)), r"no module 'layers\.2'"),
    ((), MLP(6), "at least one layer"),
])  # fmt: skip
def test_layers_that_cannot_hear_are_refused(layers, network, message):
    with pytest.raises(ValueError, match=message):
        add_column(Progressive(MLP(6), layers), network, drawn(4, 6, 1).float())


@pytest.mark.parametrize(("layer", "message"), [("dense", "called several times"), ("idle", "is not called")])
def test_layers_that_are_not_called_once_are_refused(layer, message):
    with pytest.raises(ValueError, match=message):
        add_column(Progressive(Twice(), (layer,)), Twice(), drawn(4, 6, 1).float())


def test_layers_of_other_shapes_are_refused():
    short = nn.Sequential(nn.Flatten(), nn.Linear(6, 4))
    long = nn.Sequential(nn.Identity(), nn.Linear(1, 4))
    with pytest.raises(ValueError, match="all axes but the last must be equal"):
        add_column(Progressive(short, ("1",)), long, drawn(4, 6, 1).float())
