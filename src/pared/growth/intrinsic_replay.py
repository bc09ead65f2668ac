"""Intrinsic replay: an autoencoder rehearses classes by codes drawn from what it remembers of them, decoded."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pared.models import Autoencoder


@dataclass(frozen=True)
class ClassCode:
    """What is remembered of a class: its codes' mean (width) and Cholesky factor (width, width), its number of rows."""

    mean: Tensor
    factor: Tensor
    count: int

    def padded(self, width: int, ridge: float) -> "ClassCode":
        """The same for a code that grew to `width`: new units have mean 0 and variance `ridge`, on their own."""
        old = len(self.mean)
        factor = torch.eye(width).to(self.factor) * ridge**0.5
        factor[:old, :old] = self.factor
        return ClassCode(torch.cat([self.mean, self.mean.new_zeros(width - old)]), factor, self.count)


@torch.no_grad()
def class_code(model: Autoencoder, x: Tensor, ridge: float = 1e-6) -> ClassCode:
    """Mean m and factor F of the codes of the rows of one class, F F' = C + ridge I, C their unbiased covariance.

    x (rows, inputs). Everything is in float64. Cost: an encoding of x, and width^3 / 3 multiplications. Raises
    ValueError for fewer than two rows, which have no covariance, and for codes that are not finite.
    Source: Draelos et al., Neurogenesis deep learning (2017).
    """
    if len(x) < 2:
        raise ValueError(f"the covariance of a class needs at least two rows, got {len(x)}")
    codes = model.encode(x).double()
    if not codes.isfinite().all():
        raise ValueError("the codes are not all finite numbers; train the autoencoder again, or look at its inputs")
    covariance = codes.T.cov().reshape(codes.shape[1], codes.shape[1])
    factor = torch.linalg.cholesky(covariance + ridge * torch.eye(len(covariance)).to(covariance))
    return ClassCode(codes.mean(0), factor, len(x))


@torch.no_grad()
def intrinsic_replay(model: Autoencoder, codes: Iterable[ClassCode], seed: int = 0) -> Tensor:
    """Rows drawn for each class, as many as it had: decode(m + F z), z from N(0, I).

    Returns (rows of all classes, inputs), class after class; none without codes. The draws follow from `seed` alone.
    Cost: a decoding. Raises ValueError for codes of another width than the model's. Source: as `class_code`.
    """
    weight, last = (model.get_parameter(f"encoder.{level}.weight") for level in (0, model.levels - 1))
    generator, parts = torch.Generator().manual_seed(seed), []
    for code in codes:
        if len(code.mean) != len(last):
            raise ValueError(f"codes of {len(code.mean)} units do not fit a model of {len(last)}; pad them as it grows")
        z = torch.randn(code.count, len(last), generator=generator, dtype=torch.float64).to(code.factor)
        parts.append(model.decode((code.mean + z @ code.factor.T).to(weight)))
    return torch.cat(parts) if parts else weight.new_zeros(0, weight.shape[1])
