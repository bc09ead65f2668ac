"""An autoencoder of the digits 1 and 7 meets 0, 2 and 3, one after the other, and grows for them; a few seconds."""

import torch

from pared import TrainConfig
from pared.data import classic
from pared.growth import Neurogenesis, begin_neurogenesis, fit_stacked, learn_class
from pared.models import Autoencoder

table = classic("digits")
x, y = torch.tensor(table.inputs[:900] / 16, dtype=torch.float32), torch.tensor(table.target[:900])


@torch.no_grad()
def errors(model):
    """Squared error a pixel of each class met so far."""
    return {k: round(float((model(x[y == k]) - x[y == k]).square().mean()), 4) for k in (1, 7, 0, 2, 3)}


classes = {digit: x[y == digit] for digit in (1, 7)}
base = fit_stacked(Autoencoder(64, (32, 16, 8), seed=0), torch.cat(list(classes.values())), TrainConfig(epochs=60))
now = begin_neurogenesis(base, classes, Neurogenesis(max_units=(4, 2, 1)))
print(f"trained on 1 and 7: {errors(now.model)}")
for digit in (0, 2, 3):
    now = learn_class(now, digit, x[y == digit], TrainConfig(epochs=8, lr=3e-2))
    print(f"{digit} learnt, levels gained {now.learnt[-1].gained}: {errors(now.model)}")
