"""An autoencoder of handwritten digits, its levels cut to half and trained on; a few seconds."""

import torch

from pared import TrainConfig, fit, prune, trace
from pared.data import classic
from pared.models import Autoencoder
from pared.types import Batch


class Digits:
    """Pixels as inputs and as targets."""

    def __init__(self) -> None:
        x = torch.tensor(classic("digits").inputs / 16, dtype=torch.float32)
        self.train, self.validation = Batch(x[:1200], x[:1200]), Batch(x[1200:], x[1200:])


digits, config = Digits(), TrainConfig(epochs=40)
whole = fit(Autoencoder(64, (32, 16, 8), seed=0), digits, config)
small = fit(prune(whole.model, digits.train, ratio=0.5), digits, config)
for name, each in (("whole", whole), ("cut", small)):
    widths = [group.width for group in trace(each.model, digits.train.x[:1])]
    print(f"{name}: units {widths}, squared error a pixel {each.curves['validation'][-1]:.4f}")
