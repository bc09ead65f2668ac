"""Six sigmoid layers on digits: mollified against plain, paired by seed, at as many steps of SGD with momentum.

1200 rows to train on, the other 597 looked at once after the last epoch. k = 300 was not tuned here.
"""

from functools import partial

import torch
from growth_rows import write_rows
from growth_schedules import Digits, row
from torch import nn

from pared.models import Mollified
from pared.schedules import Constant, LossDriven
from pared.training import Bound, TrainConfig, fit

LAYERS, EPOCHS = 6, 200


def sigmoid_layers(data: Digits, seed: int, mollified: bool) -> nn.Module:
    """Six layers of 64 sigmoid units, trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [Mollified(nn.Sequential(nn.Linear(64, 64), nn.Sigmoid()), float(mollified)) for _ in range(LAYERS)]
        model = nn.Sequential(*layers, nn.Linear(64, 10))
    falling = [Bound(f"{place}.p", LossDriven(300.0, (place + 1) / LAYERS)) for place in range(LAYERS)]
    bound = (Bound("momentum", Constant(0.9)), *(falling if mollified else ()))
    config = TrainConfig(
        epochs=EPOCHS, lr=0.05, optimiser="sgd", schedule=Constant(1.0), seed=seed, bound=bound
    )  # batches of 64
    return fit(model, data, config, nn.functional.cross_entropy).model


def main() -> None:
    """One row."""
    write_rows(
        [
            row(
                "mollified layers, annealed by the loss",
                "Gulcehre et al. 2017",
                partial(sigmoid_layers, mollified=True),
                "the same six sigmoid layers, plain, as many steps",
                partial(sigmoid_layers, mollified=False),
                1200,
            )
        ],
        "mollifying",
    )


if __name__ == "__main__":
    main()
