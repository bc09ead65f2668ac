"""What a student is trained on: answers of a teacher and the truth as targets, and the losses that read them."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, mse_loss

from pared.types import Loss

UNKNOWN = -1
"""The label of an example whose class nobody gave."""


class Teaching(Protocol):
    """How answers of a teacher and the truth become what a student is trained on.

    loss     of the student's outputs and the targets; of targets without answers it is the loss of the truth alone;
    targets  from the teacher's answers and the truth, one row an example;
    truth    targets of examples that have no answers, such as validation data; `like` is any of the answers;
    unknown  stands for the truth where there is none: one row an answer.
    """

    @property
    def loss(self) -> Loss: ...
    def targets(self, taught: Tensor, y: Tensor) -> Tensor: ...
    def truth(self, y: Tensor, like: Tensor) -> Tensor: ...
    def unknown(self, taught: Tensor) -> Tensor: ...


def temperature_loss(out: Tensor, taught: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(softmax(taught / T) || softmax(out / T)), averaged over the rows of logits (n, classes).

    The factor T^2 keeps the gradient's size: with q and p the student's and the teacher's softened probabilities it is
    T (q - p) / n, and at a high T (out - taught) / (n classes) for logits of mean zero. Zero where both agree.

    Source: Hinton, Vinyals & Dean, Distilling the Knowledge in a Neural Network (2015), section 2.
    """
    softened, goal = log_softmax(out / temperature, dim=1), log_softmax(taught / temperature, dim=1)
    return kl_div(softened, goal, reduction="batchmean", log_target=True) * temperature**2


@dataclass(frozen=True)
class Soft:
    """Classes: L = alpha T^2 KL(teacher at T || student at T) + (1 - alpha) CE(labels, student).

    The first term is averaged over all rows of a batch, the second over those with a label. With alpha 0 this is plain
    training, with 1 the labels are not read.
    Source: Hinton, Vinyals & Dean (2015).
    """

    temperature: float = 4.0
    alpha: float = 0.9

    def __post_init__(self) -> None:
        _check_share(self.alpha)
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"the temperature must be positive and finite, got {self.temperature}")

    def loss(self, out: Tensor, target: Tensor) -> Tensor:
        """Of logits (n, classes) and rows of a label and the teacher's logits, or of a label alone."""
        labels = target[:, 0].long()
        if target.shape[1] == 1:
            return cross_entropy(out, labels)
        soft = temperature_loss(out, target[:, 1:], self.temperature)
        told = cross_entropy(out, labels, ignore_index=UNKNOWN, reduction="sum")
        return self.alpha * soft + (1 - self.alpha) * told / (labels != UNKNOWN).sum().clamp(min=1)

    def targets(self, taught: Tensor, y: Tensor) -> Tensor:
        """(n, 1 + classes): label, logits. Raises ValueError for labels that are no class, and a class without any."""
        _check_logits(taught)
        _check_labels(y, len(taught))
        known, classes = y[y != UNKNOWN], taught.shape[1]
        _check_classes(known, classes)
        missing = sorted(set(range(classes)) - set(known.tolist()))
        if missing and self.alpha < 1 and len(known):
            raise ValueError(
                f"no example is labelled as class {missing[0]}, which the labels would teach never to predict; label "
                "some, or learn from the teacher alone with alpha=1"
            )
        return torch.cat([_column(y, taught), taught], dim=1)

    def truth(self, y: Tensor, like: Tensor) -> Tensor:
        """(n, 1). Raises ValueError for labels that are no class, -1 among them."""
        _check_logits(like)
        _check_labels(y, len(y))
        _check_classes(y, like.shape[1])
        return _column(y, like)

    def unknown(self, taught: Tensor) -> Tensor:
        """(n,): no label."""
        return torch.full(taught.shape[:1], UNKNOWN, device=taught.device)


@dataclass(frozen=True)
class Mixed:
    """Numbers: L = MSE(out, (1 - alpha) y + alpha taught); where y is NaN, the teacher's answer is the target.

    Its gradient is that of (1 - alpha) MSE(out, y) + alpha MSE(out, taught), from which it differs by a constant. It
    helps as far as the teacher is nearer to what can be predicted than y is, and on inputs without a truth.
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        _check_share(self.alpha)

    @property
    def loss(self) -> Loss:
        """The mean squared error."""
        return mse_loss

    def targets(self, taught: Tensor, y: Tensor) -> Tensor:
        """Shaped like y. Raises ValueError where the teacher's answers are shaped otherwise."""
        _check_numbers(taught, y)
        return torch.where(y.isnan(), taught, (1 - self.alpha) * y + self.alpha * taught)

    def truth(self, y: Tensor, like: Tensor) -> Tensor:
        """y itself. Raises ValueError where it is shaped otherwise than the answers, or not finite throughout."""
        _check_truth(y, like)
        return y

    def unknown(self, taught: Tensor) -> Tensor:
        """NaN throughout."""
        return torch.full_like(taught, math.nan)


@dataclass(frozen=True)
class Bounded:
    """Numbers: L = mean e_s + nu mean [e_s where e_s + margin > e_t, else 0], the teacher as a bound to get under.

    e_s and e_t are the squared errors of student and teacher on an example, averaged over its outputs: whoever beats
    the teacher by the margin is pushed no further by the second term. With nu 0 this is plain training.
    Source: Chen et al., Learning Efficient Object Detection Models with Knowledge Distillation (2017), where the first
    term is a smooth L1 loss.
    """

    nu: float = 0.5
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.nu < math.inf or not 0 <= self.margin < math.inf:
            raise ValueError(f"nu and margin must be finite and not negative, got {self.nu} and {self.margin}")

    def loss(self, out: Tensor, target: Tensor) -> Tensor:
        """Of outputs and truths, or pairs (n, 2, ...) of truth and answer."""
        if target.dim() == out.dim():
            return mse_loss(out, target)
        y, taught = target.unbind(dim=1)
        own, bound = ((part - y).square().flatten(1).mean(dim=1) for part in (out, taught))
        return mse_loss(out, y) + self.nu * own.where(own.detach() + self.margin > bound, 0.0).mean()

    def targets(self, taught: Tensor, y: Tensor) -> Tensor:
        """(n, 2, ...). Raises ValueError where the answers are shaped otherwise than y, and for a truth of NaN."""
        _check_numbers(taught, y)
        if y.isnan().any():
            raise ValueError("a bound needs the truth of every example; use Mixed for inputs without one")
        return torch.stack([y, taught], dim=1)

    def truth(self, y: Tensor, like: Tensor) -> Tensor:
        """y itself. Raises ValueError where it is shaped otherwise than the answers, or not finite throughout."""
        _check_truth(y, like)
        return y

    def unknown(self, taught: Tensor) -> Tensor:
        """NaN throughout, which `targets` refuses."""
        return torch.full_like(taught, math.nan)


def _check_share(alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is the teacher's share of the loss, from 0 to 1, got {alpha}")


def _check_numbers(taught: Tensor, y: Tensor) -> None:
    if taught.shape != y.shape or not y.is_floating_point():
        raise ValueError(
            f"targets must be numbers shaped like the teacher's outputs {shown(taught)}, got {y.dtype} {shown(y)}"
        )


def _check_truth(y: Tensor, like: Tensor) -> None:
    if y.shape[1:] != like.shape[1:] or not y.is_floating_point():
        raise ValueError(
            f"targets must be numbers shaped like the network's outputs {shown(like)}, got {y.dtype} {shown(y)}"
        )
    if not y.isfinite().all():
        raise ValueError(
            "targets without a teacher's answers, such as validation data, must be finite numbers, and some are not; "
            "leave those examples out"
        )


def _check_logits(taught: Tensor) -> None:
    if taught.dim() != 2 or taught.shape[1] < 2:
        raise ValueError(
            f"soft targets are logits (n, classes) of at least 2 classes, the teacher gives {shown(taught)}; "
            "use Mixed for numbers"
        )


def _check_labels(y: Tensor, rows: int) -> None:
    if y.shape != (rows,) or y.is_floating_point():
        raise ValueError(f"labels must be whole numbers, one an example, got {y.dtype} {shown(y)}")


def _check_classes(y: Tensor, classes: int) -> None:
    wrong = y[(y < 0) | (y >= classes)]
    if len(wrong):
        raise ValueError(f"the label {int(wrong[0])} is none of the {classes} classes that the networks tell apart")


def _column(labels: Tensor, like: Tensor) -> Tensor:
    """(n, 1): labels in the type of the logits, of half precision in float32, as that rounds those above 256."""
    return labels.to(torch.promote_types(like.dtype, torch.float32))[:, None]


def shown(tensor: Tensor) -> str:
    """A shape, as errors tell it."""
    return str(tuple(tensor.shape))
