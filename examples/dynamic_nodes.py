"""Dynamic node creation: parity of 4 bits, a unit at a time whenever the loss stands still; a few seconds."""

import torch
from torch import nn

from pared import Batch, Growing, TrainConfig, grow
from pared.data import parity
from pared.growth import Stalled, uniform_in
from pared.schedules import Constant


class Cases:
    """All 16 patterns of -1 and 1; nothing to choose on."""

    train = Batch(2 * parity(4).x.float(), 1.6 * parity(4).y.float())
    validation = Batch(train.x[:0], train.y[:0])


torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 1), nn.Tanh(), nn.Linear(1, 1), nn.Tanh())
for parameter in model.parameters():
    nn.init.uniform_(parameter, -1, 1)  # small weights would start on a plateau on which no unit sees a way
config = TrainConfig(epochs=3000, lr=0.03, batch_size=16, schedule=Constant())
how = Growing({"0": 1}, every=25, when=Stalled(window=150), goal=0.04)
grown = grow(model, Cases(), config, uniform_in, how)
right = (grown.model(Cases.train.x) * Cases.train.y > 0).sum()
print(f"{right} of 16 cases are right, with {grown.structure['0'].width} units after {len(grown.losses)} epochs")
