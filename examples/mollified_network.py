"""Six sigmoid layers that plain training never moves: mollified ones begin as the identity and become the layers as the
loss falls; some five seconds."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from pared.data import classic
from pared.models import Mollified
from pared.schedules import Constant, LossDriven
from pared.training import Bound, TrainConfig, fit
from pared.types import Batch

LAYERS = 6


class Digits:
    """A third to train on, a third to look at."""

    def __init__(self) -> None:
        table = classic("digits")
        x, y = torch.tensor(table.inputs / 16, dtype=torch.float32), torch.tensor(table.target, dtype=torch.int64)
        self.train, self.validation = Batch(x[::3], y[::3]), Batch(x[1::3], y[1::3])


def network(p):
    torch.manual_seed(0)
    layers = [Mollified(nn.Sequential(nn.Linear(64, 64), nn.Sigmoid()), p) for _ in range(LAYERS)]
    return nn.Sequential(*layers, nn.Linear(64, 10))


data, momentum = Digits(), Bound("momentum", Constant(0.9))
falling = tuple(Bound(f"{place}.p", LossDriven(100.0, (place + 1) / LAYERS)) for place in range(LAYERS))
for name, p, bound in (("mollified", 1.0, falling), ("plain", 0.0, ())):
    config = TrainConfig(epochs=120, lr=0.05, optimiser="sgd", schedule=Constant(), bound=(momentum, *bound))
    found = fit(network(p), data, config, cross_entropy)
    right = found.model.eval()(data.validation.x).argmax(1) == data.validation.y
    print(f"{name}: {right.double().mean():.1%} right")
