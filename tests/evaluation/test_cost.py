import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import rnn

from pared.evaluation.cost import Size, batch_of, latency, macs, parameters, size
from pared.models.attention import Attention
from pared.surgery import Plan, cut, trace

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


def convolution_by_hand(places, inputs, outputs, kernel, groups) -> int:
    """Multiply-adds of a convolution, one filter at one place at a time."""
    total = 0
    for _place in range(places):
        for group in range(groups):
            for _output in range(group * outputs // groups, (group + 1) * outputs // groups):
                for _input in range(group * inputs // groups, (group + 1) * inputs // groups):
                    for _entry in range(kernel):
                        total += 1
    return total


@pytest.mark.parametrize(
    ("layer", "shape", "places"),
    [
        (nn.Conv1d(4, 6, 3, padding=1), (4, 9), 9),
        (nn.Conv2d(4, 6, (3, 2), stride=2), (4, 7, 8), 3 * 4),
        (nn.Conv2d(4, 6, 3, groups=2, dilation=2), (4, 7, 8), 3 * 4),
        (nn.Conv2d(4, 8, 3, groups=4), (4, 5, 5), 3 * 3),
        (nn.Conv3d(4, 2, 2), (4, 3, 3, 3), 8),
        (nn.ConvTranspose1d(4, 6, 3), (4, 5), 5),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (4, 5, 4), 5 * 4),
    ],
    ids=str,
)
def test_macs_of_convolutions(layer, shape, places):
    hand = convolution_by_hand(
        places, layer.in_channels, layer.out_channels, math.prod(layer.kernel_size), layer.groups
    )
    assert macs(layer, torch.randn(2, *shape)) == hand
    assert macs(nn.Sequential(layer, nn.ReLU()), torch.randn(2, *shape)) == hand


def attention_by_hand(queries, memory, width, key_width, heads=2) -> int:
    """Multiply-adds of multi-head attention over one sample, one product of vectors at a time."""
    total = queries * width * width + 2 * memory * key_width * width  # the three projections
    for _head in range(heads):
        for _query in range(queries):
            for _key in range(memory):
                total += 2 * (width // heads)  # the score, and the value that it weighs
    return total + queries * width * width


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("cross", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_macs_of_attention(weights, cross, training):
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            extra = {"kdim": 5, "vdim": 5} if cross else {}
            self.attention = nn.MultiheadAttention(6, 2, batch_first=True, **extra)

        def forward(self, x, memory):
            return self.attention(x, memory, memory, need_weights=weights)[0]

    x = torch.randn(2, 7, 6)
    memory = torch.randn(2, 4, 5) if cross else x
    assert macs(Attends().train(training), (x, memory)) == attention_by_hand(7, 4 if cross else 7, 6, 5 if cross else 6)


@pytest.mark.parametrize("weights", [True, False])
def test_macs_of_cut_attention(weights):
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(6, 3, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=weights)[0]

    model, x = Attends(), torch.randn(2, 7, 6)
    small = cut(model, trace(model, x), Plan({"attention.heads": (0, 2), "attention.keys": (1,)}))
    assert isinstance(small.attention, Attention)
    hand = 7 * 6 * 2 * (1 + 1 + 2) + 2 * 7 * 7 * (1 + 2) + 7 * 4 * 6  # two heads of 1 for keys and 2 for values
    assert macs(small, x) == hand


@pytest.mark.parametrize("training", [True, False])
def test_macs_of_a_transformer_layer_do_not_depend_on_the_fast_path(training):
    layer = nn.TransformerEncoderLayer(6, 2, dim_feedforward=10, batch_first=True).train(training)
    hand = attention_by_hand(7, 7, 6, 6) + 7 * 2 * 6 * 10
    before = torch.backends.mha.get_fastpath_enabled()
    assert macs(layer, torch.randn(3, 7, 6)) == hand
    assert macs(nn.TransformerEncoder(layer, 3), torch.randn(3, 7, 6)) == 3 * hand
    assert torch.backends.mha.get_fastpath_enabled() == before


@pytest.mark.parametrize(("cell", "gates"), [(nn.LSTMCell, 4), (nn.GRUCell, 3), (nn.RNNCell, 1)])
def test_macs_of_cells_in_a_loop(cell, gates):
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell(3, 5)

        def forward(self, x):
            state = None
            for step in range(x.shape[1]):
                state = self.cell(x[:, step], state)
            return state

    assert macs(Loop(), torch.randn(2, 7, 3)) == sum(gates * 5 * (3 + 5) for _step in range(7))


def test_macs_of_a_packed_sequence_count_its_steps():
    class Packs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(3, 5, batch_first=True)

        def forward(self, x):
            return self.rnn(rnn.pack_padded_sequence(x, torch.tensor([4]), batch_first=True))[1]

    assert macs(Packs(), torch.randn(2, 7, 3)) == 4 * 3 * 5 * (3 + 5)


class Products(nn.Module):
    """Products that no layer makes."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4))
        self.matrix = nn.Parameter(torch.ones(4, 6))

    def forward(self, x):  # (n, 5, 4)
        y = x * self.gain @ self.matrix  # 5 * 4 * 6
        z = torch.einsum("nij,nkj->nik", y, y)  # 5 * 5 * 6
        a = functional.scaled_dot_product_attention(y[:, None], y[:, None], x[:, None])  # 5 * 5 * (6 + 4)
        return functional.linear(z, z.new_ones(2, 5)).sum() + a.sum() + (self.matrix @ y[0, 0]).sum()  # 5*5*2 + 4*6


def test_macs_of_products_in_the_code():
    assert macs(Products(), torch.randn(2, 5, 4)) == 5 * 4 * 6 + 5 * 5 * 6 + 5 * 5 * 10 + 5 * 5 * 2 + 4 * 6


def test_lookups_normalisations_and_pooling_cost_nothing():
    model = nn.Sequential(
        nn.Embedding(9, 4), nn.LayerNorm(4), nn.RMSNorm(4), nn.BatchNorm1d(3), nn.GroupNorm(1, 3), nn.PReLU(),
        nn.Upsample(scale_factor=2, mode="linear"), nn.AvgPool1d(2), nn.Softmax(-1),
    )  # fmt: skip
    assert macs(model, torch.randint(9, (2, 3))) == 0
    assert macs(nn.Sequential(model, nn.Linear(4, 2)), torch.randint(9, (2, 3))) == 3 * 4 * 2


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        (lambda x: torch.linalg.inv(x @ x.mT), "linalg_inv"),
        (lambda x: torch.cdist(x, x), "cdist"),
        (lambda x: torch.fft.rfft(x).real, "fft"),
        (lambda x: nn.functional.bilinear(x, x, x.new_ones(2, 3, 3)), "trilinear"),
    ],
)
def test_operations_that_hide_products_are_named(operation, name):
    class Own(nn.Module):
        def forward(self, x):
            return operation(x)

    with pytest.raises(ValueError, match=rf"no rule for the multiply-adds of aten::\w*{name}"):
        macs(Own(), torch.randn(1, 3, 3))


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


def test_batches_are_taken_in_turns():
    x, y = torch.arange(3.0), torch.arange(10)
    assert [part.tolist() for part in batch_of((x, y), 5)] == [[0, 1, 2, 0, 1], [0, 1, 2, 3, 4]]
    assert batch_of(x, 1)[0].shape == (1,)
    for wrong, count in ((x, 0), (x[:0], 1), ((), 1), (torch.tensor(1.0), 1)):
        with pytest.raises(ValueError, match="at least one example"):
            batch_of(wrong, count)


def test_latency_of_a_batch():
    seen = []

    class Notes(nn.Module):
        def forward(self, x):
            seen.append(tuple(x.shape))
            return x

    assert latency(Notes(), torch.ones(3, 2), repeats=1, batch=256) > 0
    assert set(seen) == {(256, 2)}
    seen.clear()
    latency(Notes(), torch.ones(3, 2), repeats=1)
    assert set(seen) == {(1, 2)}
