"""Net2Net half-way through a training: an LSTM that gets twice its units, an MLP that gets a second layer.

Fixed beforehand: one cosine of Adam's learning rate over the whole training, growth after half of its epochs, the
optimiser's state carried along. The controls have the final size from the first step on: for as many steps, and for as
many multiply-adds, which is fewer steps; or they never grow.

    LSTM   8 to 16 units, Mackey-Glass of tau 17, 6 steps ahead from a window of 20, 500 windows, 60 epochs;
    MLP    64-32-10 to 64-32-32-10, ReLU, 300 digits, 60 epochs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from growth_columns import task
from growth_paired import ACCURACY, LOG_ERROR, Measure, accuracy, compared, log_error, measured
from growth_rows import Row, write_rows
from growth_schedules import ROWS, Digits
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from pared import carry, deepen, insert, trace, widen
from pared.evaluation import macs
from pared.models import MLP, Forecaster
from pared.training import Fit, TrainConfig, fit
from pared.training.fit import TrainingData
from pared.training.parts import part_of
from pared.types import Batch, Loss

SEEDS, EPOCHS, WINDOWS, SOURCE = range(10), 60, 500, "Chen et al. 2016"
Grower = Callable[[Fit, TrainingData], Fit]
"""A training's first half -> what its second half goes on from."""


@dataclass(frozen=True)
class Problem:
    """Data of a seed, the network before (small) and after (large), and what is measured on a test batch."""

    name: str
    data: Callable[[int], tuple[TrainingData, Batch]]
    small: Callable[[int], nn.Module]
    large: Callable[[int], nn.Module]
    growers: Mapping[str, Grower]
    loss: Loss
    lr: float
    measure: Measure
    score: Callable[[nn.Module, Batch], float]

    def config(self, seed: int) -> TrainConfig:
        """The whole training."""
        return TrainConfig(epochs=EPOCHS, lr=self.lr, batch_size=50, seed=seed)

    def grown(self, seed: int, grower: Grower) -> float:
        """Half small, half large."""
        data, test = self.data(seed)
        config, half = self.config(seed), EPOCHS // 2
        first = fit(self.small(seed), data, part_of(config, 0, half), self.loss)
        second = fit_on(grower(first, data), data, part_of(config, half, EPOCHS), self.loss)
        return self.score(second.model, test)

    def plain(self, seed: int, build: Callable[[int], nn.Module], epochs: int = EPOCHS) -> float:
        """One network for so many epochs."""
        data, test = self.data(seed)
        return self.score(fit(build(seed), data, replace(self.config(seed), epochs=epochs), self.loss).model, test)

    def epochs_of_equal_products(self) -> int:
        """How long the large network trains on the multiply-adds of one that grows."""
        x = self.data(0)[0].train.x[:1]
        return round(EPOCHS / 2 * (1 + macs(self.small(0), x) / macs(self.large(0), x)))

    def rows(self) -> list[Row]:
        """Every way to grow against every control."""
        equal = self.epochs_of_equal_products()
        controls = {
            "the final size from the start, as many steps": lambda seed: self.plain(seed, self.large),
            f"the final size from the start, as many multiply-adds ({equal} epochs)": lambda seed: self.plain(
                seed, self.large, equal
            ),
            "the first size to the end": lambda seed: self.plain(seed, self.small),
        }
        against = [measured(name, run, SEEDS) for name, run in controls.items()]
        ours = [measured(name, partial(self.grown, grower=grower), SEEDS) for name, grower in self.growers.items()]
        return [compared(one, SOURCE, self.name, other, self.measure) for one in ours for other in against]


def fit_on(before: Fit, data: TrainingData, config: TrainConfig, loss: Loss) -> Fit:
    """Goes on, with the optimiser's state where there is one."""
    return fit(before.model, data, config, loss, before if before.optimiser_state else None)


def twice(before: Fit, data: TrainingData) -> Fit:
    """Every unit of the LSTM twice, with a little noise."""
    model = before.model
    structure = trace(model, data.train.x[:2])
    copies = {"recurrent.0.l0": range(8)}
    new = widen(model, structure, copies, noise=0.01)
    return replace(before, model=new, optimiser_state=carry(before.optimiser_state, model, new, structure, copies))


def more(before: Fit, data: TrainingData) -> Fit:
    """Eight units that nothing reads yet."""
    model = before.model
    structure = trace(model, data.train.x[:2])
    counts = {"recurrent.0.l0": 8}
    new = insert(model, structure, counts)
    return replace(before, model=new, optimiser_state=carry(before.optimiser_state, model, new, structure, counts))


def deeper(before: Fit, data: TrainingData) -> Fit:
    """A second layer that passes on what it gets; Adam begins anew."""
    new, _ = deepen(before.model, "layers.1", 32, "relu")
    return replace(before, model=new, optimiser_state={})


def windows_of(seed: int) -> tuple[TrainingData, Batch]:
    """Mackey-Glass; the rows to test on choose nothing."""
    found = task(17.0, seed, WINDOWS)
    return replace(found, validation=Batch(found.train.x[:0], found.train.y[:0])), found.validation


def digits_of(seed: int) -> tuple[TrainingData, Batch]:
    """300 digits to train on."""
    found = Digits(seed, ROWS)
    return found, found.test


PROBLEMS = (
    Problem(
        "Mackey-Glass, LSTM 8 to 16",
        windows_of,
        lambda seed: Forecaster(1, (8,), (), seed=seed),
        lambda seed: Forecaster(1, (16,), (), seed=seed),
        {"an LSTM's units copied (Net2Wider)": twice, "units of an LSTM that nothing reads yet (insert)": more},
        mse_loss,
        5e-3,
        LOG_ERROR,
        log_error,
    ),
    Problem(
        "digits, MLP of one layer, then two",
        digits_of,
        lambda seed: MLP(64, (32,), 10, "relu", seed),
        lambda seed: MLP(64, (32, 32), 10, "relu", seed),
        {"an identity layer added (Net2Deeper)": deeper},
        cross_entropy,
        3e-3,
        ACCURACY,
        accuracy,
    ),
)

if __name__ == "__main__":
    write_rows([row for problem in PROBLEMS for row in problem.rows()], "net2net")
