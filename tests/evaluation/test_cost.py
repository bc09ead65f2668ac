import pytest
import torch
from torch import nn

from pared.evaluation.cost import Size, latency, macs, parameters, size

KINDS = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}


class Recurrent(nn.Module):
    def __init__(self, cell, **kwargs) -> None:
        super().__init__()
        self.cell = cell(3, 5, batch_first=True, **kwargs)
        width = (kwargs.get("proj_size") or 5) * (2 if kwargs.get("bidirectional") else 1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Sequential(nn.Linear(width, 4), nn.Linear(4, 1, bias=False))

    def forward(self, x):
        return self.head(self.drop(self.cell(x)[0][:, -1]))


def by_hand(gates: int, steps: int, layers: int = 1, directions: int = 1, projection: int = 0) -> int:
    """Multiply-adds of `Recurrent`, counted one product at a time."""
    total, state = 0, projection or 5
    for layer in range(layers):
        inputs = 3 if layer == 0 else directions * state
        for _direction in range(directions):
            for _step in range(steps):
                for _gate in range(gates * 5):
                    total += inputs + state
                if projection:
                    total += 5 * projection
    return total + directions * state * 4 + 4


@pytest.mark.parametrize("cell", KINDS)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_macs_of_recurrent_layers(cell, layers, bidirectional):
    model = Recurrent(cell, num_layers=layers, bidirectional=bidirectional)
    expected = by_hand(KINDS[cell], steps=7, layers=layers, directions=1 + bidirectional)
    assert macs(model, torch.randn(2, 7, 3)) == expected


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_macs_with_projection(layers, bidirectional):
    model = Recurrent(nn.LSTM, num_layers=layers, bidirectional=bidirectional, proj_size=2)
    expected = by_hand(4, steps=7, layers=layers, directions=1 + bidirectional, projection=2)
    assert macs(model, torch.randn(1, 7, 3)) == expected


def test_macs_count_calls_not_modules():
    layer = nn.Linear(6, 6)
    assert macs(nn.Sequential(layer, nn.ReLU(), layer), torch.randn(4, 6)) == 2 * 36
    assert macs(nn.Linear(6, 2), torch.randn(4, 5, 6)) == 5 * 12  # once for each of the five vectors of an example


def test_parameters():
    model = Recurrent(nn.LSTM)
    assert parameters(model) == 4 * 5 * (3 + 5 + 2) + (5 * 4 + 4) + 4
    shared = nn.Linear(6, 6)
    assert parameters(nn.Sequential(shared, shared)) == 42


def test_unknown_modules_are_named():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(1))

    with pytest.raises(ValueError, match=r"LayerNorm \(1\)"):
        macs(nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)), torch.randn(1, 3))
    with pytest.raises(ValueError, match=r"Own \(the model itself\)"):
        macs(Own(), torch.randn(1, 3))


@pytest.mark.parametrize("call", [macs, lambda model, x: latency(model, x, repeats=2)], ids=["macs", "latency"])
@pytest.mark.parametrize("width", [3, 2], ids=["works", "fails"])
def test_the_model_is_left_as_it_was(call, width):
    model = Recurrent(nn.GRU).train()
    model.head.eval()
    flags = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    if width == 3:
        call(model, torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)))
    else:
        with pytest.raises(RuntimeError):
            call(model, torch.ones(2, 4, width))
    assert [module.training for module in model.modules()] == flags
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    assert torch.equal(random, torch.get_rng_state())
    assert torch.is_grad_enabled()


def test_latency_is_a_median_and_size_holds_all_three():
    def slow_at_first(x, calls=[0]):  # noqa: B006
        calls[0] += 1
        if calls[0] in (11, 12):  # outliers after the warm-up must not matter
            torch.linalg.svd(torch.ones(300, 300))
        return x

    class Slow(nn.Module):
        def forward(self, x):
            return slow_at_first(x)

    assert 0 < latency(Slow(), torch.ones(1, 1), repeats=9) < 1.0
    model, x = Recurrent(nn.LSTM), torch.randn(2, 7, 3)
    got = size(model, x, repeats=3)
    assert got == Size(parameters(model), macs(model, x), got.milliseconds)
    assert got.milliseconds > 0
    with pytest.raises(ValueError, match="repeats"):
        latency(model, x, repeats=0)
