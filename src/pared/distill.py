"""Teacher and student: a network learns what another one gives, beside or instead of the truth.

A teacher's answers are worked out once and travel with the targets, so that every variant is a way to make targets and
a loss for them, and `fit` does the training. A way is any object with the four members of `Teaching`.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pared.signals import output_of, tensor_of
from pared.targets import Soft, Teaching, shown
from pared.training.fit import Fit, TrainConfig, TrainingData, check_batches, fit
from pared.types import Batch, Masks

CHUNK = 4096

Teacher = nn.Module | Sequence[nn.Module]
"""A network, or several, whose outputs are averaged (of logits: the geometric mean of their probabilities)."""


@dataclass(frozen=True)
class Lessons:
    """Data for `fit` in which a teacher's answers stand beside the truth; validation data hold the truth alone."""

    train: Batch
    validation: Batch


def answers(teacher: Teacher, x: Tensor) -> Tensor:
    """What a teacher gives for inputs: in evaluation mode, without gradients, in chunks; the mean where several teach.

    Raises: ValueError for no teacher, and for answers that are no finite numbers; TypeError for what is no network.
    """
    teachers = list(teacher) if isinstance(teacher, Sequence) else [teacher]
    if not teachers:
        raise ValueError("there is no teacher; give at least one network")
    parts = [_outputs(each, x) for each in teachers]
    if len({part.shape for part in parts}) > 1:
        raise ValueError(f"teachers must be of like outputs, got {', '.join(map(shown, parts))}")
    found = torch.stack(parts).mean(dim=0) if len(parts) > 1 else parts[0]
    if not found.isfinite().all():
        raise ValueError("the teacher's outputs are not all finite numbers; train it again, or look at the inputs")
    return found


@torch.no_grad()
def _outputs(model: nn.Module, x: Tensor, read: Callable[[nn.Module, Tensor], Tensor] | None = None) -> Tensor:
    if not isinstance(model, nn.Module):
        raise TypeError(f"teacher and student are networks, got a {type(model).__name__}; of a Fit give its .model")
    frozen = copy.deepcopy(model).eval()
    parts = [read(frozen, part) if read else tensor_of(frozen(part)) for part in torch.split(x, CHUNK)]
    return torch.cat(parts)


def lessons(teacher: Teacher, split: TrainingData, how: Teaching, unlabelled: Tensor | None = None) -> Lessons:
    """The data that a student is trained on; `unlabelled` inputs, of which the truth is not known, come after the rest.

    Raises: ValueError as `answers` and the targets of `how` do.
    """
    taught = answers(teacher, split.train.x)
    if len(taught) != len(split.train.x):
        raise ValueError(f"the teacher must give one row an example, got {shown(taught)} for {len(split.train.x)}")
    targets, x = how.targets(taught, split.train.y), split.train.x
    if unlabelled is not None and len(unlabelled):
        more = answers(teacher, unlabelled)
        targets = torch.cat([targets, how.targets(more, how.unknown(more))])
        x = torch.cat([x, unlabelled])
    validation = split.validation
    if len(validation.x):
        validation = Batch(validation.x, how.truth(validation.y, taught))
    return Lessons(Batch(x, targets), validation)


def distill(
    student: nn.Module,
    teacher: Teacher,
    split: TrainingData,
    config: TrainConfig,
    how: Teaching = Soft(),
    unlabelled: Tensor | None = None,
    masks: Masks | None = None,
) -> Fit:
    """Trains a copy of `student` by `fit` on what `teacher` gives for the training inputs, and on the truth.

    `how` is `Soft` (classes), `Mixed` or `Bounded` (numbers), or a way of your own. `unlabelled` are further inputs,
    whose truth nobody knows; in classes they may also lie in `split.train` under the label -1. The validation loss is
    that of the truth alone, so that patience and the best epoch mean what they mean in plain training.

    Returns a `Fit`. Cost: one forward pass of the teacher over all inputs, then as `fit`.
    Raises: ValueError, before any training, for a teacher and a student of unlike outputs, for labels that are no class
    or a class without labels, for a validation truth that is no class or not finite, and as `fit` does; TypeError for
    what is no network.
    """
    taught = lessons(teacher, split, how, unlabelled)
    _check_alike(student, teacher, split.train.x)
    check_batches(student, taught.train.x, config)
    return fit(student, taught, config, how.loss, masks=masks)


def _check_alike(student: nn.Module, teacher: Teacher, x: Tensor) -> None:
    own, goal = _outputs(student, x[:2]), answers(teacher, x[:2])
    if own.shape != goal.shape:
        raise ValueError(
            f"teacher and student must give like outputs; of {len(goal)} examples the teacher gives {shown(goal)}, "
            f"the student {shown(own)}: change the student's last layer"
        )


def born_again(
    build: Callable[[int], nn.Module],
    split: TrainingData,
    config: TrainConfig,
    how: Teaching = Soft(temperature=1.0, alpha=0.5),
    generations: int = 2,
) -> tuple[Fit, ...]:
    """Networks of one size, each taught by the one before: `build(g)` is the fresh one of generation g = 0, 1, ...

    Generation 0 learns from the truth alone; generation g is trained with the seed `config.seed + g`. The models of all
    generations together are a teacher, too.

    Returns `generations` + 1 fits. Raises: ValueError as `distill`, and for no generation.
    Source: Furlanello et al., Born-Again Neural Networks (2018).
    """
    if generations < 1:
        raise ValueError(f"there must be at least one generation after the first, got {generations}")
    first = build(0)
    like = _outputs(first, split.train.x[:1])
    parts = (split.train, split.validation)
    plain = Lessons(*(Batch(x, how.truth(y, like) if len(x) else y) for x, y in parts))
    fits = [fit(first, plain, config, how.loss)]
    for generation in range(1, generations + 1):
        own = replace(config, seed=config.seed + generation)
        fits.append(distill(build(generation), fits[-1].model, split, own, how))
    return tuple(fits)


def adapt(
    teacher: nn.Module,
    source: Tensor,
    target: Tensor,
    config: TrainConfig,
    how: Teaching = Soft(temperature=1.0, alpha=1.0),
    student: nn.Module | None = None,
) -> Fit:
    """A network for another domain, from pairs without a truth: row i of `source` and `target` is the same thing twice.

    The student, by default a copy of the teacher, learns to give for target i what the teacher gives for source i; with
    `Soft(1, 1)` the loss is that of the paper, - mean over i of sum over c of p_T(c | source i) log p_S(c | target i),
    but for a constant.

    Returns a `Fit`. Cost: as `distill`. Raises: ValueError where the rows are no pairs, and as `distill` does.
    Source: Li et al., Large-Scale Domain Adaptation via Teacher-Student Learning (2017).
    """
    if len(source) != len(target):
        raise ValueError(f"parallel data come in pairs, got {len(source)} rows of the source, {len(target)} of target")
    taught, own = answers(teacher, source), teacher if student is None else student
    if (given := _outputs(own, target[:2])).shape != taught[:2].shape:
        raise ValueError(
            f"teacher and student must give like outputs, got {shown(taught[:2])} and {shown(given)} of 2 rows"
        )
    nothing = Batch(target[:0], taught[:0])
    pairs = Lessons(Batch(target, how.targets(taught, how.unknown(taught))), nothing)
    return fit(own, pairs, config, how.loss)


def hint(
    student: nn.Module,
    teacher: nn.Module,
    layers: tuple[str, str],
    split: TrainingData,
    config: TrainConfig,
) -> Fit:
    """Trains a copy of the student until a layer of it tells what a layer of the teacher does: FitNets' first stage.

        L = mean (A h_s(x) - h_t(x))^2

    `layers` names the student's and the teacher's module; A is a linear map over the axis in which their outputs
    differ, trained along and thrown away. Of a recurrent layer the whole trajectory is matched. What comes after the
    student's layer stays as it is; go on with `distill(found.model, ...)`.

    Returns a `Fit` of the student with a fresh optimiser's state. Cost: as `fit`, and the teacher once.
    Raises: ValueError for modules that are not there, and for outputs that differ in more than one axis.
    Source: Romero et al., FitNets: Hints for Thin Deep Nets (2015).
    """
    own, goal = layers
    x = split.train.x
    features = _outputs(teacher, x, lambda model, part: output_of(model, goal, part))
    before = _outputs(student, x[:2], lambda model, part: output_of(model, own, part))
    hinted = _Hinted(student, own, _regressor(before, features[:2], config.seed))
    validation = split.validation
    if len(validation.x):
        told = _outputs(teacher, validation.x, lambda model, part: output_of(model, goal, part))
        validation = Batch(validation.x, told)
    found = fit(hinted, Lessons(Batch(x, features), validation), config)
    assert isinstance(found.model, _Hinted)
    return replace(found, model=found.model.student, optimiser_state={"state": {}, "param_groups": []})


class _Hinted(nn.Module):
    """The student up to a layer, and the map from there to the teacher's layer."""

    def __init__(self, student: nn.Module, path: str, regressor: nn.Module) -> None:
        super().__init__()
        self.student, self.path, self.regressor = student, path, regressor

    def forward(self, x: Tensor) -> Tensor:
        return tensor_of(self.regressor(output_of(self.student, self.path, x)))


class _Along(nn.Module):
    """A linear map over one axis."""

    def __init__(self, axis: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.axis, self.linear = axis, nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return tensor_of(self.linear(x.movedim(self.axis, -1))).movedim(-1, self.axis)


def _regressor(own: Tensor, goal: Tensor, seed: int) -> nn.Module:
    axes = [axis for axis, sizes in enumerate(zip(own.shape, goal.shape, strict=False)) if len(set(sizes)) > 1]
    if own.dim() != goal.dim() or own.dim() < 2 or len(axes) > 1 or 0 in axes:
        raise ValueError(
            f"the layers' outputs may differ in the number of units alone, the student's is {shown(own)}, the "
            f"teacher's {shown(goal)} of 2 examples; name layers whose other axes are equal"
        )
    axis = axes[0] if axes else (1 if own.dim() == 4 else own.dim() - 1)  # of images, units are the second axis
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _Along(axis, own.shape[axis], goal.shape[axis]).to(own.device, own.dtype)
