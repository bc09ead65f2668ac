"""Criteria from gradients with respect to units."""

from typing import Literal

from torch import Tensor, nn

from pared.signals import unit_gradients
from pared.surgery import trace
from pared.types import Batch, Loss, Scores


def taylor(
    model: nn.Module, batch: Batch, loss: Loss, *, of: Literal["output", "loss"] = "output", power: Literal[1, 2] = 2
) -> Scores:
    """How much the output, to first order, moves when a unit goes.

    With a gate m_j = 1 on unit j, the same at every time step: s_j = mean over samples of sum_o |d y_o / d m_j|^power,
    where d y / d m_j = sum_t h_j dy/dh_j. For a squared error and power 2 this is the Gauss-Newton estimate of the loss
    that removal adds. `of="loss"` differentiates each sample's loss instead, which vanishes where the fit is perfect.

    Scores: group -> (units,), output (or loss) units to the power, >= 0; comparable between groups.
    Cost: one vectorised forward and backward a sample and output. Source: Molchanov et al. (2017), eq. 8, with the gate
    of Michel et al. (2019) and the output form of Gauss-Newton; per-sample values, as sums over the batch would cancel.
    """
    structure = trace(model, batch.x[:1])

    def output(out: Tensor, target: Tensor) -> Tensor:
        return out.flatten()

    def sample_loss(out: Tensor, target: Tensor) -> Tensor:
        return loss(out, target).reshape(1)

    gradients = unit_gradients(model, structure, batch.x, output if of == "output" else sample_loss, batch.y)
    return {name: (gradient.abs() ** power).sum(dim=1).mean(dim=0) for name, gradient in gradients.items()}
