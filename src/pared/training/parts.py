"""A training in parts, for loops that change something in between: one schedule and one seed for all of them."""

from dataclasses import replace

from pared.schedules import Stateful, Stretch
from pared.seeds import seed_of
from pared.training.bound import Bound
from pared.training.fit import TrainConfig


def part_of(config: TrainConfig, start: int, stop: int) -> TrainConfig:
    """The epochs from `start` to `stop` of a training: its part of all schedules, and an order of samples of its own.

    Schedules that follow the loss go on where the fit that is resumed left them. The part that starts at epoch 0 has
    the seed of the whole. Raises ValueError for epochs that are not there.
    """
    if not 0 <= start < stop <= config.epochs:
        raise ValueError(f"a part must lie within the {config.epochs} epochs, got {start} to {stop}")
    first, length = start / config.epochs, (stop - start) / config.epochs
    bound = tuple(
        each if isinstance(each.schedule, Stateful) else Bound(each.target, Stretch(each.schedule, first, length))
        for each in config.bound
    )
    seed = seed_of(config.seed, start) if start else config.seed
    return replace(
        config, epochs=stop - start, schedule=Stretch(config.schedule, first, length), bound=bound, seed=seed
    )
