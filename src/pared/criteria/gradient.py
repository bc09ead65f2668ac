"""Criteria from gradients with respect to units."""

from typing import Literal

from torch import Tensor, nn

from pared.data.batches import example, suited_batch
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
    Cost: one forward pass a sample and one backward pass a sample and output, vectorised where PyTorch can: with
    hundreds of outputs choose `of="loss"`. Source: Molchanov et al. (2017), eq. 8, with the gate
    of Michel et al. (2019) and the output form of Gauss-Newton; per-sample values, as sums over the batch would cancel.
    """
    batch = suited_batch(batch, model)
    structure = trace(model, example(batch.x))

    def output(out: Tensor, target: Tensor) -> Tensor:
        return out.flatten()

    def sample_loss(out: Tensor, target: Tensor) -> Tensor:
        return loss(out, target).reshape(1)

    def size(gradient: Tensor) -> Tensor:
        return (gradient.abs() ** power).sum(dim=0)

    value = output if of == "output" else sample_loss
    gradients = unit_gradients(model, structure, batch.x, value, batch.y, size)
    return {name: each.mean(dim=0) for name, each in gradients.items()}
