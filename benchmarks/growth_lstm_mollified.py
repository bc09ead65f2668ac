"""Mollified LSTM and GRU layers on Mackey-Glass against plain ones, paired by seed, as many steps.

16 units read windows of 50, tau 17, and say the value 6 steps ahead: 500 windows to train on, 500 to test on, each
seed's from a stretch of its own; 20 epochs of 50 windows by Adam at 1e-2 with a cosine, set beforehand. p falls with
the loss (`LossDriven`); the paper leaves its strength open: here p would be a half after a tenth of the steps if the
loss stayed at the variance of the data. Both arms begin with the same weights.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from growth_paired import LOG_ERROR, Arm, compared, timed
from growth_rows import Row, write_rows
from torch import Tensor, nn

from pared import Batch, TrainConfig, fit
from pared.data import mackey_glass, windows
from pared.models import MollifiedGRU, MollifiedLSTM
from pared.schedules import LossDriven
from pared.training import Bound

SEEDS, WINDOW, AHEAD, ROWS, UNITS, SOON = range(10), 50, 6, 500, 16, 4
STRETCH = 2 * ROWS + 2 * (WINDOW + AHEAD)
VALUES = (mackey_glass(17.0, length=len(SEEDS) * STRETCH).values - 0.9) / 0.25
CONFIG = TrainConfig(epochs=20, lr=1e-2, batch_size=50)
FALLING = Bound("layer.p", LossDriven(float(np.log(2)) * 0.1 * CONFIG.epochs * ROWS / CONFIG.batch_size))
LAYERS = {"LSTM": MollifiedLSTM, "GRU": MollifiedGRU}


@dataclass(frozen=True)
class Parts:
    """Windows to train on; what is called validation here is looked at and nothing follows from it."""

    train: Batch
    validation: Batch


class Reader(nn.Module):
    """A recurrent layer whose last step is read."""

    def __init__(self, kind: str, p: float) -> None:
        super().__init__()
        self.layer, self.head = LAYERS[kind](1, UNITS, p), nn.Linear(UNITS, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.layer(x)[0][:, -1])
        return out


def parts(seed: int) -> Parts:
    """A stretch's first windows and its last, which share no value."""
    x, _, y = windows(VALUES[seed * STRETCH : (seed + 1) * STRETCH], WINDOW, AHEAD)
    whole = Batch(torch.tensor(x.copy(), dtype=torch.float32), torch.tensor(y[:, None].copy(), dtype=torch.float32))
    return Parts(*(Batch(whole.x[part], whole.y[part]) for part in (slice(ROWS), slice(len(y) - ROWS, None))))


def errors(seed: int, kind: str, mollified: bool) -> tuple[float, float]:
    """ln of the test MSE after a few epochs, and at the end."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Reader(kind, float(mollified))
    config = replace(CONFIG, seed=seed, bound=(FALLING,) if mollified else ())
    curve = fit(model, parts(seed), config).curves["validation"]
    return float(np.log(curve[SOON - 1])), float(np.log(curve[-1]))


def rows_of(kind: str) -> list[Row]:
    """After a few epochs, and at the end."""
    found, theirs = (timed(partial(errors, kind=kind, mollified=mollified), SEEDS) for mollified in (True, False))
    rows = []
    for place, when in enumerate((f"after {SOON} of {CONFIG.epochs} epochs", f"after {CONFIG.epochs} epochs")):
        ours, control = (tuple(each[place] for each in values) for values, _ in (found, theirs))
        rows.append(
            compared(
                Arm(f"mollified {kind}, {when}", ours, found[1]),
                "Gulcehre et al. 2017",
                "Mackey-Glass, windows of 50, 6 ahead",
                Arm("the plain layer, as many steps", control, theirs[1]),
                LOG_ERROR,
            )
        )
    return rows


def main() -> None:
    """Both kinds."""
    write_rows([row for kind in LAYERS for row in rows_of(kind)], "lstm_mollified")


if __name__ == "__main__":
    main()
