"""Teacher and student, measured: distillation, hints, born-again networks, another domain, refits of cut networks.

Paired by seed, which deals out the data, draws the weights and orders the samples. Arms of a pair take as many training
steps of the student unless the row says otherwise; test data choose nothing. Seconds are the processor's, of one
training with its teachers'. The compiled kernel trains on the truth and on mixed targets, the slower engine for fleets
in step on a teacher's answers, so that seconds differ more than multiply-adds do.

Settings come from five seeds (of the series: stretches) that are not measured, by rows held out there. 100 labels: the
student alone 89.2 points after 308 epochs and 89.6 after 660; teachers of the same labels: five MLPs of 256 units 89.3
together; convolutions at a rate of 0.01 90.2 after 60 epochs and 90.3 after 150, at 0.003 87.8; taught by those 90.2 at
T = 1 (alpha 0.5: 89.4, alpha 1: 89.9), 89.4 at T = 2, 88.1 at T = 4, 86.3 at T = 8. 300 labels: 93.9 after 60 epochs
and 94.1 after 600; four layers of 16 76.6, 84.3, 85.3 and 84.9 after 60, 200, 300 and 600. Forecasters overfit beyond
300 epochs, their MLP teachers beyond 100, and a GRU was not done at 60 (ln of the MSE -1.97, at 150 -2.09); mixed
targets did better with alpha 0.5 than with 0.9 and 1. For refits and students of four layers T made no difference.
"""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np
import torch
from growth_paired import ACCURACY, LOG_ERROR, Arm, compared
from growth_rows import Row, write_rows
from growth_schedules import Digits
from scipy.ndimage import rotate
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from pared import MLP, Forecaster, TrainConfig, prune
from pared.data import mackey_glass, windows
from pared.distill import Lessons, Teacher, adapt, answers, hint, lessons
from pared.evaluation import macs
from pared.evaluation.metrics import Floats
from pared.targets import Bounded, Mixed, Soft, Teaching
from pared.training import fit_many
from pared.types import Batch, Loss

SEEDS = range(10)
CROWD = 3
SERIES = "noisy Mackey-Glass, 300 windows"
STEPS, PRODUCTS = "as many steps", "as many multiply-adds as it and its teachers"
Trained = tuple[list[nn.Module], float]
"""A network a seed, and mean seconds of one."""
Crowd = tuple[list[list[nn.Module]], float]
"""Several networks a seed, and mean seconds of those of one seed."""


def config(seed: int, epochs: int, lr: float = 3e-3) -> TrainConfig:
    """Adam with a cosine, 50 examples a step."""
    return TrainConfig(epochs=epochs, lr=lr, batch_size=50, seed=seed)


def trained(models: Sequence[nn.Module], data: Sequence[Lessons], epochs: int, loss: Loss, salt: int = 0) -> Trained:
    """A network a seed."""
    started = time.process_time()
    fits = fit_many(models, data, [config(seed + salt, epochs) for seed in SEEDS], loss)
    return [each.model for each in fits], (time.process_time() - started) / len(SEEDS)


def crowd(
    build: Callable[[int], nn.Module], data: Sequence[Lessons], epochs: int, loss: Loss, lr: float = 3e-3
) -> Crowd:
    """Three teachers a seed, each of its own start and order."""
    started = time.process_time()
    seeds = [seed + 1000 * k for seed in SEEDS for k in range(1, CROWD + 1)]
    dealt = [each for each in data for _ in range(CROWD)]
    fits = fit_many([build(seed) for seed in seeds], dealt, [config(seed, epochs, lr) for seed in seeds], loss)
    models = [each.model for each in fits]
    return [models[k : k + CROWD] for k in range(0, len(models), CROWD)], (time.process_time() - started) / len(SEEDS)


def taught(
    models: Sequence[nn.Module],
    teachers: Sequence[Teacher],
    data: Sequence[Lessons],
    epochs: int,
    how: Teaching = Soft(),
    unlabelled: Sequence[Tensor | None] = (None,) * len(SEEDS),
    salt: int = 0,
) -> Trained:
    """What `distill` does, for all seeds in step."""
    told = [lessons(*each[:2], how, each[2]) for each in zip(teachers, data, unlabelled, strict=True)]
    return trained(models, told, epochs, how.loss, salt)


def mlps(widths: tuple[int, ...], salt: int = 0) -> list[nn.Module]:
    """Fresh networks for digits."""
    return [MLP(64, widths, 10, "relu", seed + salt) for seed in SEEDS]


def cut_off(data: Sequence[Digits], count: int) -> list[Lessons]:
    """The first training rows."""
    return [Lessons(Batch(each.train.x[:count], each.train.y[:count]), each.validation) for each in data]


def hits(name: str, teachers: Sequence[Teacher], tests: Sequence[Batch], seconds: float) -> Arm:
    """Points of the test rows put into the right class; of several networks by their mean logits."""
    right = [(answers(t, test.x).argmax(1) == test.y).double().mean() for t, test in zip(teachers, tests, strict=True)]
    return Arm(name, tuple(100 * each.item() for each in right), seconds)


def misses(name: str, teachers: Sequence[Teacher], tests: Sequence[Batch], seconds: float) -> Arm:
    """The log of the mean squared error one step ahead, of values that are noisy themselves."""
    errors = [mse_loss(answers(t, test.x), test.y).item() for t, test in zip(teachers, tests, strict=True)]
    return Arm(name, tuple(map(math.log, errors)), seconds)


def mean(arm: Arm) -> str:
    """For notes."""
    return f"{np.mean(arm.values):.3f}"


digits = partial(compared, measure=ACCURACY)
series = partial(compared, data=SERIES, measure=LOG_ERROR)


def convolutional(seed: int) -> nn.Module:
    """Two layers of convolutions, which see the 64 inputs as the image that they are: 35 times the student's work."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first = (nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        second = (nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        return nn.Sequential(*first, *second, nn.Linear(128, 10))


def few_labels() -> list[Row]:
    """A student of 32 units; its teachers saw 1,100 labels, or the same 100 and then 1,000 inputs without one."""
    data, students = [Digits(seed, 1100) for seed in SEEDS], mlps((32,))
    few, tests, pools = cut_off(data, 100), [d.test for d in data], [d.train.x[100:] for d in data]
    knowing, once = trained(mlps((256,), 1000), cut_off(data, 1100), 40, cross_entropy)
    teachers, spent = crowd(convolutional, few, 60, cross_entropy, lr=1e-2)
    ratio = macs(teachers[0][0], pools[0][:1]) / macs(students[0], pools[0][:1])
    more = math.ceil(CROWD * ratio * (60 + 1100 / 300))  # in epochs of 100 rows, of which an answer costs a third
    plain = hits(f"the student alone, {STEPS}", *scored(trained(students, few, 440, cross_entropy), tests))
    longer = hits(f"the student alone, {PRODUCTS}", *scored(trained(students, few, 440 + more, cross_entropy), tests))
    told = scored(taught(students, knowing, few, 440), tests, once)
    told_more = scored(taught(students, knowing, few, 40, unlabelled=pools), tests, once)
    same = scored(taught(students, teachers, few, 440, Soft(temperature=1.0)), tests, spent)
    pooled = scored(taught(students, teachers, few, 40, Soft(temperature=1.0), pools), tests, spent)
    names = (
        "distillation, T = 4, by a teacher of 1,100 labels",
        "distillation, T = 1, by 3 larger teachers of the same labels",
    )
    (first, both), (second, third) = (
        (hits(name, *without), hits(f"{name}, on 1,000 unlabelled inputs too", *pool))
        for name, without, pool in zip(names, (told, same), (told_more, pooled), strict=True)
    )
    ours, theirs = (f"the teachers {mean(hits('', each, tests, 0))}" for each in (knowing, teachers))
    row = partial(digits, source="Hinton et al. 2015", data="digits, 100 labels")
    return [
        row(first, theirs=plain, note=f"{ours}; this arm is the target's (2 points)"),
        row(both, theirs=plain, note=ours),
        row(second, theirs=plain, note=theirs),
        row(third, theirs=plain, note=theirs),
        row(third, theirs=longer, note=theirs),
        row(third, theirs=second, note=theirs),
    ]


def scored(
    found: Trained, tests: Sequence[Batch], before: float = 0.0
) -> tuple[list[nn.Module], Sequence[Batch], float]:
    """Networks, what to test them on, and their seconds, those of their teachers included."""
    return found[0], tests, found[1] + before


@cache
def whole() -> Floats:
    """A long Mackey-Glass series, standardised."""
    values = mackey_glass(length=25_000).values[:, 0]
    return np.asarray((values - values.mean()) / values.std())


def noisy(seed: int) -> tuple[Lessons, Batch]:
    """300 windows of a stretch of it under noise (sd 0.3) that follow each other, and the 600 after them to test on."""
    stretch = whole()[1200 * seed : 1200 * seed + 918]
    values = stretch + 0.3 * np.random.default_rng(seed).standard_normal(len(stretch))
    x, _, y = (torch.tensor(part.copy(), dtype=torch.float32) for part in windows(values[:, None], 18))
    train, test = Batch(x[:300], y[:300, None]), Batch(x[300:], y[300:, None])
    return Lessons(train, Batch(x[:0], y[:0, None])), test


def forecasters() -> list[Row]:
    """An MLP of 8 units, taught by three of 64."""
    data, tests = zip(*map(noisy, SEEDS), strict=True)
    students = [MLP(18, (8,), 1, "tanh", seed) for seed in SEEDS]
    teachers, spent = crowd(lambda seed: MLP(18, (64,), 1, "tanh", seed), data, 100, mse_loss)
    plain = misses(f"the student alone, {STEPS}", *scored(trained(students, data, 300, mse_loss), tests))
    mixed = scored(taught(students, teachers, data, 300, Mixed()), tests, spent)
    bounded = scored(taught(students, teachers, data, 300, Bounded()), tests, spent)
    words = "distillation of a forecaster by 3 larger ones,"
    note = f"the teachers {mean(misses('', teachers, tests, 0))}"
    first, second = misses(f"{words} mixed targets", *mixed), misses(f"{words} as a bound", *bounded)
    return [
        series(first, "Hinton et al. 2015", theirs=plain, note=note),
        series(second, "Chen et al. 2017", theirs=plain, note=note),
    ]


def hints() -> list[Row]:
    """A student of four layers of 16, 300 labels; of 300 epochs 100 go to its second layer, or none."""
    data, students = [Digits(seed, 300) for seed in SEEDS], mlps((16,) * 4)
    own, tests = cut_off(data, 300), [d.test for d in data]
    teachers, spent = trained(mlps((128, 128), 1000), own, 100, cross_entropy)
    started = time.process_time()
    parts = zip(students, teachers, own, SEEDS, strict=True)
    first = [hint(s, t, ("layers.3", "layers.1"), d, config(seed, 100)).model for s, t, d, seed in parts]
    before = spent + (time.process_time() - started) / len(SEEDS)
    hinted = hits("hints, then distillation, T = 4", *scored(taught(first, teachers, own, 200), tests, before))
    alone = hits("distillation, T = 4", *scored(taught(students, teachers, own, 300), tests, spent))
    plain = hits(f"the student alone, {STEPS}", *scored(trained(students, own, 300, cross_entropy), tests))
    note = f"the teacher {mean(hits('', teachers, tests, 0))}"
    row = partial(digits, data="digits, 300 labels, four layers of 16", note=note)
    return [
        row(hinted, "Romero et al. 2015", theirs=replace(alone, name=f"distillation alone, {STEPS}")),
        row(hinted, "Romero et al. 2015", theirs=plain),
        row(alone, "Hinton et al. 2015", theirs=plain),
    ]


def generations() -> list[Row]:
    """Three generations of 64 units on 300 labels; three that teach nobody; one trained three times as long."""
    data = [Digits(seed, 300) for seed in SEEDS]
    own, tests, builds = cut_off(data, 300), [d.test for d in data], [mlps((64,), 1000 * k) for k in range(3)]
    alone = [trained(models, own, 100, cross_entropy, k) for k, models in enumerate(builds)]
    line = alone[:1]
    for k, models in enumerate(builds[1:], 1):
        line.append(taught(models, line[-1][0], own, 100, Soft(temperature=1.0, alpha=0.5), salt=k))
    spent, plain = (sum(seconds for _, seconds in each) for each in (line, alone))
    sofar = [sum(seconds for _, seconds in line[: k + 1]) for k in range(3)]
    names = [f"born-again networks, {name} generation" for name in ("first", "second", "third")]
    found = [hits(name, models, tests, cost) for name, (models, _), cost in zip(names, line, sofar, strict=True)]
    both = (list(zip(*(models for models, _ in each), strict=True)) for each in (line, alone))
    family, strangers = (hits(*a) for a in zip(TOGETHER, both, (tests, tests), (spent, plain), strict=True))
    longer = hits("one network, three times as many steps", *scored(trained(builds[0], own, 300, cross_entropy), tests))
    row = partial(digits, source="Furlanello et al. 2018", data="digits, 300 labels")
    return [
        row(found[1], theirs=replace(found[0], name="its parent, the first generation")),
        row(found[2], theirs=replace(found[1], name="its parent, the second generation")),
        row(found[2], theirs=hits("the same network, taught by nobody", alone[2][0], tests, alone[2][1])),
        row(found[2], theirs=longer),
        row(family, theirs=strangers),
    ]


TOGETHER = ("born-again networks, three generations together", "three networks that teach nobody, together")


def turned(x: Tensor) -> Tensor:
    """Digits turned by 30 degrees."""
    images = rotate(x.reshape(-1, 8, 8).numpy(), 30, axes=(1, 2), reshape=False, order=1)
    return torch.tensor(images.reshape(-1, 64), dtype=torch.float32)


def domains() -> list[Row]:
    """A teacher of 300 labels; 800 further digits, as they are and turned, with none or some of their labels."""
    data = [Digits(seed, 1100) for seed in SEEDS]
    teachers, _ = trained(mlps((64,)), cut_off(data, 300), 100, cross_entropy)
    tests = [Batch(turned(d.test.x), d.test.y) for d in data]
    there = [Lessons(Batch(turned(d.train.x[300:]), d.train.y[300:]), d.validation) for d in data]
    tenth = [Lessons(Batch(d.train.x[:80], d.train.y[:80]), d.validation) for d in there]
    started = time.process_time()
    pairs = zip(teachers, data, there, SEEDS, strict=True)
    moved = [adapt(t, d.train.x[300:], other.train.x, config(seed, 20)).model for t, d, other, seed in pairs]
    seconds = (time.process_time() - started) / len(SEEDS)
    ours = hits("adaptation by pairs without labels", moved, tests, seconds)
    still = hits("the teacher as it is", teachers, tests, 0.0)
    tuned = hits(
        f"the teacher trained on with 80 labels, {STEPS}", *scored(trained(teachers, tenth, 160, cross_entropy), tests)
    )
    oracle = hits("", *scored(trained(teachers, there, 20, cross_entropy), tests))
    source, rows, note = (
        "Li et al. 2017",
        "digits turned by 30 degrees",
        f"trained on with all 800 labels {mean(oracle)}",
    )
    return [digits(ours, source, rows, still, note=note), digits(ours, source, rows, tuned, note=note)]


def refits() -> list[Row]:
    """Networks that lose three quarters of their units, refitted for 20 epochs on their own answers, or for as much."""
    dealt = [Digits(seed, 500) for seed in SEEDS]
    own, tests = cut_off(dealt, 500), [d.test for d in dealt]
    large, _ = trained(mlps((64, 32)), own, 60, cross_entropy)
    rolled, ahead = zip(*map(noisy, SEEDS), strict=True)
    cells = [Forecaster(1, (32,), (), cell="gru", seed=seed) for seed in SEEDS]
    wide, _ = trained(cells, rolled, 150, mse_loss)
    words, control = (
        "refit of a network cut by 75 %, on its own answers",
        "refit on the truth alone, as many multiply-adds",
    )
    told, plain = refitted(large, own, cross_entropy, Soft())
    mixed, alone = refitted(wide, rolled, mse_loss, Mixed())
    source, notes = "Hinton et al. 2015", (mean(hits("", large, tests, 0)), mean(misses("", wide, ahead, 0)))
    return [
        digits(
            hits(words, *scored(told, tests)), source, "digits, 500 labels", hits(control, *scored(plain, tests)),
            note=f"uncut {notes[0]}",
        ),
        series(
            misses(words, *scored(mixed, ahead)), source, theirs=misses(control, *scored(alone, ahead)),
            note=f"uncut {notes[1]}; GRU of 32 units",
        ),
    ]  # fmt: skip


def refitted(full: Sequence[nn.Module], data: Sequence[Lessons], loss: Loss, how: Teaching) -> tuple[Trained, Trained]:
    """Taught and not; a teacher's answers cost a third of an epoch of its own, which the other trains longer."""
    small = [prune(model, d.train, ratio=0.75, loss=loss) for model, d in zip(full, data, strict=True)]
    example = data[0].train.x[:1]
    more = math.ceil(macs(full[0], example) / macs(small[0], example) / 3)
    return taught(copy.deepcopy(small), full, data, 20, how), trained(small, data, 20 + more, loss)


def warm() -> None:
    """Has the kernels compiled, which no arm is to pay for."""
    whole_numbers, numbers = cut_off([Digits(seed, 50) for seed in SEEDS], 50), [noisy(seed)[0] for seed in SEEDS]
    trained(mlps((2,)), whole_numbers, 1, cross_entropy)
    trained([MLP(18, (2,), 1, "tanh", seed) for seed in SEEDS], numbers, 1, mse_loss)
    trained([Forecaster(1, (2,), (), cell="gru", seed=seed) for seed in SEEDS], numbers, 1, mse_loss)


def main() -> None:
    """All studies."""
    torch.set_num_threads(1)
    warm()
    rows: list[Row] = []
    for study in (few_labels, forecasters, hints, generations, domains, refits):
        started = time.process_time()
        found = study()
        print(f"{study.__name__}: {time.process_time() - started:.0f} s", *found, sep="\n")
        rows += found
        write_rows(rows, "distill")


if __name__ == "__main__":
    main()
