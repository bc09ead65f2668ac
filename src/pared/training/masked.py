"""Training in which some weights are zero and stay zero."""

from typing import Any

import torch
from torch import Tensor, nn

from pared.signals import check_masks
from pared.types import Masks


def keep_silent(model: nn.Module, optimiser: torch.optim.Optimizer, masks: Masks) -> None:
    """Makes the masked weights zero now, in place, and after every step of the optimiser.

    Moments that the optimiser keeps of them are zeroed as well: they would carry weights away from zero, and back to
    life should a mask open later.

    Raises: ValueError for masks that do not fit the parameters.
    """
    parameters = dict(model.named_parameters())
    check_masks({name: parameter.detach() for name, parameter in parameters.items()}, masks)
    open_ = {parameters[name]: mask.to(parameters[name].device) for name, mask in masks.items()}

    @torch.no_grad()
    def silence(*_: Any) -> None:
        for parameter, mask in open_.items():
            parameter.masked_fill_(~mask, 0.0)
            for moment in optimiser.state.get(parameter, {}).values():
                if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                    moment.masked_fill_(~mask, 0.0)

    silence()
    optimiser.register_step_post_hook(silence)
