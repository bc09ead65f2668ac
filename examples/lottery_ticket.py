"""A lottery ticket on handwritten digits: trained, pruned, set back, trained anew; a few seconds."""

import torch
from torch.nn.functional import cross_entropy

from pared import MLP, Batch, Steps, TrainConfig, criteria, density, lottery_ticket
from pared.data import classic
from pared.schedules import Exponential


class Digits:
    """Two thirds to train on, a third to look at."""

    def __init__(self) -> None:
        table = classic("digits")
        x, y = torch.tensor(table.inputs / 16, dtype=torch.float32), torch.tensor(table.target, dtype=torch.int64)
        held = torch.arange(len(y)) % 3 == 0
        self.train, self.validation = Batch(x[~held], y[~held]), Batch(x[held], y[held])


data, rounds = Digits(), Steps(Exponential(0.8), 3)
model, config = MLP(64, (64, 32), 10, "relu", seed=0), TrainConfig(epochs=30, lr=3e-3)
ticket = lottery_ticket(model, data, criteria.magnitude, rounds, config, cross_entropy, rewind=2)
losses = [fit.curves["validation"][-1] for fit in ticket.fits]
print(f"validation loss {losses[0]:.3f} with all weights, {losses[-1]:.3f} with {density(ticket.masks):.0%} of them")
