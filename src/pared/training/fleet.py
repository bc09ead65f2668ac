"""Many small networks: every member is trained as `fit` would train it alone, several at a time."""

from collections.abc import Iterator, Sequence

import torch
from joblib import Parallel, delayed
from torch import nn
from torch.nn.functional import mse_loss

from pared.training.fit import Fit, TrainConfig, TrainingData, fit
from pared.types import Loss


def fit_many(
    models: Sequence[nn.Module],
    splits: Sequence[TrainingData],
    configs: Sequence[TrainConfig],
    loss: Loss = mse_loss,
    resume: Sequence[Fit] | None = None,
    jobs: int = 1,
) -> list[Fit]:
    """Trains member i on `splits[i]` with `configs[i]`, as `fit` does; the result does not depend on its companions.

    `jobs` members are trained at a time, each on one processor. Raises ValueError when the three lists differ in length.
    """
    fits: list[Fit | None] = [None] * len(models)
    for index, member in fit_each(models, splits, configs, loss, resume, jobs):
        fits[index] = member
    return [member for member in fits if member is not None]


def fit_each(
    models: Sequence[nn.Module],
    splits: Sequence[TrainingData],
    configs: Sequence[TrainConfig],
    loss: Loss = mse_loss,
    resume: Sequence[Fit] | None = None,
    jobs: int = 1,
) -> Iterator[tuple[int, Fit]]:
    """`fit_many` as a stream: yields (index, fit) in the order in which members finish."""
    if not len(models) == len(splits) == len(configs) == (len(resume) if resume else len(models)):
        raise ValueError(
            f"give one split and one config a model, got {len(models)} models, {len(splits)} splits, {len(configs)} configs"
        )
    earlier = resume or [None] * len(models)
    members = list(zip(models, splits, configs, earlier, strict=True))
    if jobs == 1:
        for index, (model, split, config, before) in enumerate(members):
            yield index, fit(model, split, config, loss, before)
    else:
        calls = (delayed(_fit_on_one_thread)(index, *member, loss) for index, member in enumerate(members))
        yield from Parallel(n_jobs=jobs, return_as="generator_unordered")(calls)


def _fit_on_one_thread(
    index: int, model: nn.Module, split: TrainingData, config: TrainConfig, before: Fit | None, loss: Loss
) -> tuple[int, Fit]:
    torch.set_num_threads(1)
    return index, fit(model, split, config, loss, before)
