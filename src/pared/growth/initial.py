"""What new units start with: rules that add units and change nothing yet, by chance, by copies or by the gradient.

A growth rule is a function `rule(model, structure, batch, loss, counts, seed) -> new model` whose new units stand at
the end of their groups, so that `carry(state, model, new, structure, counts)` takes the optimiser along.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pared.growth.entries import (
    Places,
    answer,
    check_growth,
    gradients_at,
    makers,
    newest,
    places_of,
    readers,
    values_at,
    with_values,
)
from pared.growth.probes import linear_gradients
from pared.surgery import Structure, StructureError, insert, widen
from pared.surgery.edit import tensor_of
from pared.surgery.origins import grown_structure
from pared.types import Batch, Loss


class GrowthRule(Protocol):
    """Adds `counts[name]` units to each named group; what they start with may follow from the batch and the loss."""

    def __call__(
        self, model: nn.Module, structure: Structure, batch: Batch, loss: Loss, counts: Mapping[str, int], seed: int = 0
    ) -> nn.Module: ...


STIR, NUDGE = 1e-20, 1e-18
"""Weights and biases that count as zero in every sum and yet let a ReLU pass its gradient."""


def random_in(
    model: nn.Module, structure: Structure, batch: Batch, loss: Loss, counts: Mapping[str, int], seed: int = 0
) -> nn.Module:
    """New units whose inputs are drawn like those of the others and whose outputs are zero: `insert`.

    The model computes what it did, in recurrent layers too. Cost: a copy. Raises as `check_growth` and `insert` do.
    Source: Philipp & Carbonell (2017), zero units.
    """
    check_growth(structure, batch, counts)
    return insert(model, structure, counts, seed)


def uniform_in(
    model: nn.Module, structure: Structure, batch: Batch, loss: Loss, counts: Mapping[str, int], seed: int = 0,
    scale: float = 1.0,
) -> nn.Module:  # fmt: skip
    """New units whose inputs and biases are drawn from U[-scale, scale] and whose outputs are zero.

    Other than with `random_in`, they owe nothing to the units that are there: where training has brought the weights of
    these close to zero, as on the plateau that parity begins with, units like them would see nothing either.
    The model computes what it did. Cost: a copy. Raises as `random_in` and `makers`, and ValueError for a scale that is
    not above 0.
    Source: Ash (1989), dynamic node creation.
    """
    if not scale > 0:
        raise ValueError(f"the scale of new units' inputs must be above 0, got {scale}")
    new, grown = random_in(model, structure, batch, loss, counts, seed), grown_structure(structure, counts)
    units, generator = newest(grown, counts), torch.Generator().manual_seed(seed)
    for name, count in counts.items():
        made = makers(new, grown, units, name)
        entries = sum(where.shape[1] for where in made.values())
        drawn = torch.rand(count, entries, generator=generator, dtype=torch.float64)
        new = with_values(new, [(made, scale * (2 * drawn - 1))])
    return new


def zero_in(
    model: nn.Module, structure: Structure, batch: Batch, loss: Loss, counts: Mapping[str, int], seed: int = 0
) -> nn.Module:
    """New units whose inputs are zero and whose outputs are drawn like those of the others.

    Exact where a unit of no inputs gives zero (ReLU, tanh, GELU, LSTM, GRU). torch's ReLU has the derivative 0 at 0, so
    that such units would never learn; "zero" is 1e-20 here (biases 1e-18), which no sum notices. Cost: a copy. Raises
    StructureError where units without inputs are heard, as sigmoids are, where they would never learn, and as `insert`.
    """

    def drawn(name: str, old: Mapping[str, Tensor], generator: torch.Generator) -> Tensor:
        sizes = torch.cat([part.square().mean().sqrt().expand(part.shape[1]) for part in old.values()])
        return torch.randn(counts[name], len(sizes), generator=generator, dtype=torch.float64) * sizes

    return _without_inputs(model, structure, batch, loss, counts, seed, drawn)


def gradmax(
    model: nn.Module, structure: Structure, batch: Batch, loss: Loss, counts: Mapping[str, int], seed: int = 0
) -> nn.Module:
    """New units without inputs that read out along the top singular vectors of M: the largest gradient at the start.

    With the inputs of a new unit at zero and its outputs at v, dL/d(inputs) = M v, M = E[h (dL/da)'] between what the
    unit reads (h) and what reads it (a). The k new units get the k leading right singular vectors of M, each as long as
    those of the other units are on average; beyond the rank of M they are drawn. M is measured by units with tiny
    inputs and no outputs, so that it is that of any network which surgery understands, LSTM and GRU included, times
    the mean of the activation's slopes on both sides of 0.

    The model computes what it did. Cost: a forward and a backward pass with twice as many new units as one unit has
    inputs, another pass, an SVD. Raises as `zero_in`. Source: Evci et al., GradMax (2022).
    """
    check_growth(structure, batch, counts)
    directions = {name: _directions(linear_gradients(model, structure, batch, loss, name)) for name in counts}

    def along(name: str, old: Mapping[str, Tensor], generator: torch.Generator) -> Tensor:
        length: Tensor = torch.cat(list(old.values()), dim=1).norm(dim=1).mean()
        best = directions[name][: counts[name]]
        rest = torch.randn(counts[name] - len(best), best.shape[1], generator=generator, dtype=torch.float64)
        return length * torch.cat([best, rest / rest.norm(dim=1, keepdim=True)])

    return _without_inputs(model, structure, batch, loss, counts, seed, along)


def copies(
    model: nn.Module, structure: Structure, batch: Batch, loss: Loss, counts: Mapping[str, int], seed: int = 0,
    noise: float = 1e-2,
) -> nn.Module:  # fmt: skip
    """New units that are copies of others, drawn at random, which share their outputs with them: `widen`.

    `noise`, relative to the weights, tells copies from their originals; with 0 the model computes what it did, but the
    copies stay alike for ever. Cost: a copy. Raises as `widen`. Source: Chen, Goodfellow & Shlens, Net2Net (2016).
    """
    check_growth(structure, batch, counts)
    draw = np.random.default_rng(seed)
    chosen = {name: tuple(draw.integers(structure[name].width, size=count).tolist()) for name, count in counts.items()}
    return widen(model, structure, chosen, noise, seed)


Outputs = Callable[[str, Mapping[str, Tensor], torch.Generator], Tensor]
"""Group, what reads its other units (parameter -> (units, entries)) -> what reads the new ones (units, entries)."""


def _without_inputs(
    model: nn.Module,
    structure: Structure,
    batch: Batch,
    loss: Loss,
    counts: Mapping[str, int],
    seed: int,
    outputs: Outputs,
) -> nn.Module:
    """New units with next to no inputs, and with these outputs."""
    check_growth(structure, batch, counts)
    new, grown = insert(model, structure, counts, seed), grown_structure(structure, counts)
    units, generator = newest(grown, counts), torch.Generator().manual_seed(seed)
    made = {name: makers(new, grown, units, name) for name in counts}
    changes: list[tuple[Places, Tensor]] = []
    for name in counts:
        read = readers(new, grown, units, name)
        old = places_of(model, structure[name], range(structure[name].width), "out")
        kept = {parameter: values_at(model, {parameter: old[parameter]}).double() for parameter in read}
        changes += [(made[name], _stirred(new, made[name])), (read, outputs(name, kept, generator))]
    new = with_values(new, changes)
    before, after = answer(model, batch.x).double(), answer(new, batch.x).double()
    if (after - before).abs().max() > 1e-4 * before.abs().max().clamp_min(1e-12):
        raise StructureError(
            f"units of {', '.join(map(repr, counts))} are heard although they have no inputs, as those of a sigmoid "
            "are; use random_in or tiny"
        )
    for name, places in made.items():
        slopes, whole = gradients_at(new, batch, loss, places)
        if not (slopes.norm(dim=1) > 1e-12 * whole).all():
            raise StructureError(
                f"units of {name!r} would never learn without inputs: several layers follow each other in making "
                "them, or nothing that reads them is alive; use random_in"
            )
    return new


def _stirred(model: nn.Module, made: Places) -> Tensor:
    parts = []
    for name, where in made.items():
        now = values_at(model, {name: where})
        parts.append(torch.full_like(now, NUDGE) if tensor_of(model, name).dim() == 1 else now * STIR)
    return torch.cat(parts, dim=1)


def _directions(gradients: Tensor) -> Tensor:
    """(rank, readers): the right singular vectors, that of the largest value first."""
    _, sizes, right = torch.linalg.svd(gradients, full_matrices=False)
    leading: Tensor = right[sizes > 1e-9 * sizes.max()]
    return leading
