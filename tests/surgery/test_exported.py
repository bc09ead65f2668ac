"""Networks that torch.fx cannot follow are followed by torch.export, and what that cannot show is tried out."""

import pytest
import torch
from torch import Tensor, nn

from networks import snapshot, unchanged
from pared.surgery import Plan, StructureError, cut, mask, trace


class Branching(nn.Module):
    """A branch on the number of samples and a loop over the steps: settled by shapes, but not for torch.fx."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTM(3, 6, 2, batch_first=True), nn.GRU(6, 4, batch_first=True, bias=False)
        self.conv, self.norm = nn.Conv1d(8, 5, 1), nn.BatchNorm1d(5)
        self.wide, self.last = nn.Linear(4, 8), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] > 1:
            x = 2 * x
        x, _ = self.gru(self.lstm(x)[0])
        total = torch.zeros_like(x[:, 0])
        for step in range(x.shape[1]):
            total = total + torch.relu(x[:, step])
        x = self.norm(self.conv(self.wide(total)[:, :, None])).flatten(1)
        return self.last(torch.tanh(x))


class Decoding(nn.Module):
    """A decoder that runs for as many steps as its input is long."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder, self.last = nn.LSTM(3, 6, batch_first=True), nn.LSTMCell(1, 6), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        _, (h, c) = self.encoder(x)
        state, y, out = (h[-1], c[-1]), x[:, -1, :1], []
        for _ in range(x.shape[1]):
            state = self.decoder(y, state)
            y = self.last(state[0])
            out.append(y)
        return torch.stack(out, 1)


class Reading(nn.Module):
    """Words: a vector each, a branch on how many there are; the product with a matrix turned by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.gru, self.last = nn.Embedding(9, 6), nn.GRU(6, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        vectors = self.words(x)
        return self.gru(vectors if x.shape[1] > 2 else 2 * vectors)[1][-1] @ self.last.weight.T + self.last.bias


class Stubborn(nn.Module):
    """The code holds the width of one layer: a cut of it would crash."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(3, 8), nn.Linear(8, 6), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] > 100:
            return self.last(x)
        return self.last(torch.relu(self.b(torch.tanh(self.a(x)).reshape(len(x), 8))))


GROUPS = {
    Branching: {"lstm.l0", "lstm.l1", "gru.l0", "wide", "conv"},
    Decoding: {"encoder.l0"},
    Reading: {"words", "gru.l0"},
    Stubborn: {"b"},
}


@pytest.mark.parametrize(
    "kind", [Stubborn, *(pytest.param(k, marks=pytest.mark.slow) for k in GROUPS if k is not Stubborn)]
)
def test_what_export_follows_is_cut_as_it_is_masked(kind):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x = kind().double().eval(), torch.randn(2, 5, 3, dtype=torch.float64)
    x = {Stubborn: x[:, 0], Reading: torch.arange(6).reshape(2, 3)}.get(kind, x)
    before, state = snapshot(model), torch.get_rng_state()
    structure = trace(model, x)
    unchanged(before, model)
    assert torch.equal(torch.get_rng_state(), state)
    assert {group.name for group in structure} == GROUPS[kind]
    plan = structure.bind(Plan({group.name: tuple(range(1, group.width, 2)) for group in structure}))
    small = cut(model, structure, plan)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    torch.testing.assert_close(small(x), mask(model, structure, plan)(x), atol=1e-12, rtol=1e-12)


def test_what_does_not_shrink_is_said():
    structure = trace(Stubborn(), torch.randn(2, 3))
    assert "a         8 units  stays: the code around it does not shrink with it" in structure.explain()


def test_control_flow_on_values_is_refused_by_both():
    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.last = nn.Linear(3, 4), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.a(x) if x.sum() > 0 else -self.a(x))

    with pytest.raises(StructureError, match=r"torch.fx cannot follow Deciding.forward.*nor can torch.export"):
        trace(Deciding(), torch.zeros(1, 3))
