"""Layers split, put in and taken out: exact where they promise it, replayed without tracing, refused by name."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from networks import snapshot, unchanged
from pared.models.stacked import Stacked
from pared.surgery import (
    Insert,
    Plan,
    StructureError,
    cut,
    deepen,
    drop_layer,
    insert,
    load,
    mask,
    replay,
    save,
    split_layers,
    trace,
)

KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def seeded(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().double().eval()


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


OPTIONS = [{}, {"batch_first": True, "bias": False}, {"bidirectional": True, "batch_first": True}, {"dropout": 0.5}]
CASES = [(kind, options) for kind in KINDS for options in OPTIONS] + [("lstm", {"proj_size": 2})]


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_split_layers_give_equal_outputs(kind, options):
    rnn = seeded(lambda: KINDS[kind](3, 5, num_layers=3, **options))
    single = Stacked(rnn)
    x = normal(4, 6, 3)
    out, state = rnn(x)
    mine, states = single(x)
    torch.testing.assert_close(mine, out, atol=1e-14, rtol=0)
    pairs = zip(state, states, strict=True) if kind == "lstm" else [(state, states)]
    for whole, parts in pairs:
        torch.testing.assert_close(torch.stack(parts), whole, atol=1e-14, rtol=0)
    again, _ = single(x, state)
    expected, _ = rnn(x, state)
    torch.testing.assert_close(again, expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_split_layers_may_differ_in_width_and_are_replayed(kind, tmp_path):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.last = KINDS[kind](3, 5, num_layers=3, batch_first=True), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.rnn(x)[0][:, -1])

    model, x = seeded(Net), normal(4, 6, 3)
    before = snapshot(model)
    single, history = split_layers(model)
    unchanged(before, model)
    torch.testing.assert_close(single(x), model(x), atol=1e-14, rtol=0)
    structure = trace(single, x)
    assert structure.equal == ()
    plan = structure.bind(Plan({f"rnn.layers.{k}.l0": tuple(range(k + 2)) for k in range(3)}))
    small = cut(single, structure, plan)
    torch.testing.assert_close(small(x), mask(single, structure, plan)(x), atol=1e-12, rtol=0)
    assert [layer.hidden_size for layer in small.rnn.layers] == [2, 3, 4]
    save(tmp_path, small, history.then(plan))
    assert torch.equal(load(tmp_path, seeded(Net))(x), small(x))


def test_splitting_needs_layers():
    with pytest.raises(StructureError, match="nothing to split"):
        split_layers(nn.LSTM(2, 3))


class Chain(nn.Module):
    """An over-deep network with modules as activations."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU, norm: bool = False) -> None:
        super().__init__()
        middle = [nn.Linear(6, 7), nn.BatchNorm1d(7) if norm else nn.Identity(), activation()]
        self.body = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), *middle, nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@pytest.mark.parametrize("method", ["exact", "bussgang", "least_squares"])
def test_a_linear_layer_is_dropped_exactly(method):
    model, x = seeded(lambda: Chain(nn.Identity)), normal(200, 4)
    before = snapshot(model)
    small, plan = drop_layer(model, "body.2", x, method, ridge=1e-14)
    unchanged(before, model)
    torch.testing.assert_close(small(x), model(x), atol=1e-10, rtol=0)
    assert small.body[5].weight.shape == (5, 6)
    again = replay(Plan.from_json(plan.to_json()), seeded(lambda: Chain(nn.Identity)))
    again.load_state_dict(small.state_dict())
    assert torch.equal(again(x), small(x))


def test_least_squares_is_best_and_composition_worst():
    """Oracle of 7.2 of the method reference: LS 0.190, Bussgang 0.195, plain composition 1.178 on its own draw."""
    model, x = seeded(lambda: nn.Sequential(nn.Linear(10, 7), nn.ReLU(), nn.Linear(7, 4))), normal(20_000, 10)
    z = model(x).detach()
    model.requires_grad_(False)
    left = {
        method: float((drop_layer(model, "0", x, method)[0](x) - z).square().sum() / (z - z.mean(0)).square().sum())
        for method in ("least_squares", "bussgang", "exact")
    }
    assert left["least_squares"] <= left["bussgang"] <= 1.1 * left["least_squares"]
    assert left["exact"] > 2 * left["bussgang"]
    design = np.column_stack([x.numpy(), np.ones(len(x))])
    naive = z.numpy() - design @ np.linalg.lstsq(design, z.numpy(), rcond=None)[0]
    assert left["least_squares"] == pytest.approx((naive**2).sum() / ((z - z.mean(0)) ** 2).sum().item(), rel=1e-6)


def test_normalisations_and_activations_go_with_their_layer():
    model, x = seeded(lambda: Chain(norm=True)), normal(100, 4)
    small, _ = drop_layer(model, "body.2", x)
    assert all(isinstance(small.body[k], nn.Identity) for k in (2, 3, 4))
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert (small(x) - model(x)).square().mean() < model(x).var()


@pytest.mark.parametrize("kind", KINDS)
def test_a_recurrent_layer_is_dropped_from_a_stack(kind):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = KINDS[kind](3, 5, batch_first=True), KINDS[kind](5, 4, batch_first=True)
            self.last = nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.b(self.a(x)[0])[0][:, -1])

    model, x = seeded(Net), normal(50, 6, 3)
    small, plan = drop_layer(model, "a", x)
    assert small.b.input_size == 3
    assert (small(x) - model(x)).square().mean() < model(x).var()
    again = replay(plan, seeded(Net))
    again.load_state_dict(small.state_dict())
    assert torch.equal(again(x), small(x))
    shorter, _ = drop_layer(model, "b", x)
    assert shorter.last.weight.shape == (1, 5)
    shorter(x)


def test_a_residual_block_is_dropped_by_name():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return x + torch.tanh(self.inner(x))

    model, x = seeded(lambda: nn.Sequential(nn.Linear(3, 4), Block(), nn.Linear(4, 2))), normal(5, 3)
    small, _ = drop_layer(model, "1", x)
    assert torch.equal(small(x), model[2](model[0](x)))


def test_what_cannot_be_dropped_is_said():
    model, x = seeded(Chain), normal(20, 4)
    before = snapshot(model)
    with pytest.raises(StructureError, match="no module 'nowhere'"):
        drop_layer(model, "nowhere", x)
    with pytest.raises(StructureError, match=r"'body.7' cannot be dropped: its units cannot be cut"):
        drop_layer(model, "body.7", x)
    with pytest.raises(ValueError, match="unknown method"):
        drop_layer(model, "body.2", x, "magic")
    unchanged(before, model)


@pytest.mark.parametrize("kind", ["linear", "relu", "lstm", "gru", "rnn"])
def test_a_layer_put_in_changes_nothing_and_can_be_trained(kind):
    model, x = seeded(Chain), normal(5, 4)
    place = {"linear": ("body.0", 6), "relu": ("body.6", 5)}.get(kind)
    if place is None:
        model, x, place = seeded(lambda: nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))), normal(5, 6, 3), ("0", 5)
    before = snapshot(model)
    deep, plan = deepen(model, *place, kind)
    unchanged(before, model)
    torch.testing.assert_close(deep(x), model(x), atol=1e-12, rtol=0)
    deep(x).square().sum().backward()
    new = [p for name, p in deep.named_parameters() if name not in dict(model.named_parameters())]
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in new)
    again = replay(Plan.from_json(plan.to_json()), model)
    again.load_state_dict(deep.state_dict())
    assert torch.equal(again(x), deep(x))


def test_a_relu_after_another_activation_is_refused():
    with pytest.raises(StructureError, match="would change it"):
        deepen(seeded(Chain), "body.1", 6, "relu")
    with pytest.raises(StructureError, match="unknown kind"):
        deepen(seeded(Chain), "body.1", 6, "tanh")


def test_a_layer_of_another_width_is_refused_where_that_is_known():
    model = nn.Sequential(nn.LSTM(3, 5, bidirectional=True), Chain(norm=True))
    for place, width in [("0", 10), ("1.body.0", 6), ("1.body.1", 6), ("1.body.4", 7), ("1.body", 2)]:
        deepen(model, place, width)
        with pytest.raises(StructureError, match=f"'{place}' returns {width} values"):
            deepen(model, place, width + 1)
    deepen(nn.Sequential(nn.ReLU(), nn.Linear(4, 2)), "0", 4)
    twice, _ = deepen(deepen(model, "1.body.1", 6)[0], "1.body.1", 6)
    with pytest.raises(StructureError, match="returns 6 values"):
        deepen(twice, "1.body.1", 5)
    for width in (0, -8, 2.5):
        with pytest.raises(ValueError, match=f"above 0, got {width}"):
            deepen(model, "0", width)


def test_a_history_of_all_edits_is_saved_and_loaded(tmp_path):
    """Split, grow, deepen, drop, cut: loaded on a fresh network without tracing, bit for bit."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(3, 4, num_layers=2, batch_first=True)
            self.head = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    model, x = seeded(Net), normal(40, 6, 3)
    network, plan = split_layers(model)
    structure = trace(network, x[:1])
    network = insert(network, structure, {"rnn.layers.1.l0": 2})
    torch.testing.assert_close(network(x), model(x), atol=1e-12, rtol=0)
    plan = plan.then(Insert({"rnn.layers.1.l0": 2}, structure.groups))
    network, deeper = deepen(network, "head.1", 6, "relu")
    plan = plan.then(deeper)
    network, shorter = drop_layer(network, "head.2", x)
    plan = plan.then(shorter)
    structure = trace(network, x[:1])
    last = structure.bind(Plan({"rnn.layers.0.l0": (0, 2, 3), "rnn.layers.1.l0": (0, 1, 4, 5)}))
    small = cut(network, structure, last)
    save(tmp_path, small, plan.then(last))
    again = load(tmp_path, seeded(Net))
    assert torch.equal(again(x), small(x))
    assert [layer.hidden_size for layer in again.rnn.layers] == [3, 4]
