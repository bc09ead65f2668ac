"""CapNorm: normalisation that only ever makes units quieter, so that a penalty on their weights cannot be dodged."""

import torch
from torch import Tensor, nn


class CapNorm(nn.modules.batchnorm._NormBase):
    """z -> (z - mu) / max(sigma, 1) for each unit, without weights: quiet units stay quiet, silent ones silent.

    mu and sigma^2 are those of the batch in training, running means of them (a tenth of each new batch's) else. x is
    (samples, units) or (samples, units, ...). Batch normalisation instead would undo any shrinkage of the weights
    before it. Source: Philipp & Carbonell, Nonparametric neural networks (2017), section 3.2.
    """

    def __init__(self, units: int) -> None:
        super().__init__(units, affine=False)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2 or input.shape[1] != self.num_features:
            raise ValueError(f"CapNorm expects (samples, {self.num_features}, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        mean, variance = self.get_buffer("running_mean"), self.get_buffer("running_var")
        if self.training:
            self._check_input_dim(input)
            running = mean, variance
            variance, mean = torch.var_mean(input, [d for d in range(input.dim()) if d != 1], correction=0)
            with torch.no_grad():
                running[0].lerp_(mean, 0.1)
                running[1].lerp_(variance, 0.1)
        if input.dim() > 2:
            mean, variance = (each.view(-1, *(1,) * (input.dim() - 2)) for each in (mean, variance))
        return (input - mean) / variance.clamp_min(1).sqrt()
