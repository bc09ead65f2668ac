"""What a run has no setting for, searched on a module of your own; some seconds.

Directions, the forget gate's bias, noise on states, and steps on which the network is fed its own forecasts instead of
the truth (`own_steps` 0 is teacher forcing).
"""

import torch
from torch import nn

from pared import Batch, TrainConfig, fit
from pared.search import Categorical, Float, Int, PowerOfTwo, SearchSettings, Space, search


class Network(nn.Module):
    """A bidirectional or plain LSTM below a recurrent cell that is stepped by hand."""

    def __init__(self, units, both, forget, state_dropout, own_steps):
        super().__init__()
        self.below = nn.LSTM(1, units, batch_first=True, bidirectional=both)
        self.cell, self.out = nn.GRUCell(1, units), nn.Linear(units * (3 if both else 2), 1)
        self.drop, self.own_steps = nn.Dropout(state_dropout), own_steps
        with torch.no_grad():
            self.below.bias_hh_l0[units : 2 * units] = forget

    def forward(self, x):
        read, _ = self.below(x)
        state, answer = x.new_zeros(len(x), self.cell.hidden_size), x[:, 0]
        for step in range(x.shape[1]):
            own = step > 0 and step >= x.shape[1] - self.own_steps
            state = self.drop(self.cell(answer if own else x[:, step], state))
            answer = self.out(torch.cat([read[:, step], state], 1))
        return answer


class Data:
    """A noisy sine, 8 values to forecast the next."""

    def __init__(self):
        wave = torch.arange(300).mul(0.5).sin() + 0.1 * torch.randn(300, generator=torch.Generator().manual_seed(0))
        x, y = wave.unfold(0, 8, 1)[:-1, :, None], wave[8:, None]
        self.train, self.validation = Batch(x[:200], y[:200]), Batch(x[200:], y[200:])


def error(point, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(*(point[name] for name in ("units", "both", "forget", "state_dropout", "own_steps")))
    config = TrainConfig(epochs=5, lr=point["lr"], batch_size=point["batch"], seed=seed)
    return fit(network, Data(), config).curves["validation"][-1]


space = Space(
    {
        "units": PowerOfTwo(4, 16),
        "both": Categorical((False, True)),
        "forget": Categorical((0.0, 1.0)),
        "state_dropout": Float(0.0, 0.3, step=0.1),
        "own_steps": Int(0, 2),
        "lr": Float(3e-3, 3e-2, log=True),
        "batch": PowerOfTwo(16, 64),
    }
)
found = search(error, space, SearchSettings(trials=10))
print(
    f"{found.point}: error {found.confirmed.expected:.4f} is to be expected, {found.winner.values[0]:.4f} was its score"
)
