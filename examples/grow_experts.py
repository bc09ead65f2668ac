"""Recurrent experts for a series whose law changes without notice; one becomes four by splits. A few seconds."""

import torch

from pared import Forecaster, TrainConfig
from pared.data import switching, windows
from pared.growth import MixtureLoss, grow_experts
from pared.models import Experts
from pared.types import Batch


class Data:
    """Windows of six steps and what comes next."""

    def __init__(self) -> None:
        x, _, y = windows(2 * switching(2500).values - 1, 6)
        batch = Batch(torch.tensor(x.copy()).float(), torch.tensor(y[:, None].copy()).float())
        self.train, self.validation = Batch(*(part[:1500] for part in batch)), Batch(*(part[1500:] for part in batch))


data = Data()
mixture = Experts([Forecaster(1, (6,), (), seed=0)], gate=Forecaster(1, (6,), (), 6, seed=1), features=6, seed=2)
grown = grow_experts(mixture, data, TrainConfig(epochs=60, batch_size=100), up_to=4, every=10, loss=MixtureLoss(0.1))
errors = [fit.curves["validation"][-1] for fit in grown.fits]
print("validation error before each split and at the end:", ", ".join(f"{error:.4f}" for error in errors))
shares = grown.model.parts(data.validation.x)[1].exp().mean(0)
print("shares of the experts:", ", ".join(f"{share:.2f}" for share in shares))
