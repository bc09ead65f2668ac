"""A training in parts, for loops that change something in between: one schedule and one seed for all of them."""

from dataclasses import dataclass, replace

from pared.seeds import seed_of
from pared.training.fit import TrainConfig
from pared.types import Schedule


@dataclass(frozen=True)
class Stretch:
    """A part of a schedule: v(p) = schedule(start + length p)."""

    schedule: Schedule
    start: float
    length: float

    def __call__(self, progress: float) -> float:
        return self.schedule(self.start + self.length * progress)


def part_of(config: TrainConfig, start: int, stop: int) -> TrainConfig:
    """The epochs from `start` to `stop` of a training: its learning rates, and an order of samples of its own.

    The part that starts at epoch 0 has the seed of the whole. Raises ValueError for epochs that are not there.
    """
    if not 0 <= start < stop <= config.epochs:
        raise ValueError(f"a part must lie within the {config.epochs} epochs, got {start} to {stop}")
    schedule = Stretch(config.schedule, start / config.epochs, (stop - start) / config.epochs)
    seed = seed_of(config.seed, start) if start else config.seed
    return replace(config, epochs=stop - start, schedule=schedule, seed=seed)
