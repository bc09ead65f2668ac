"""What new units could do for a network, measured: units with tiny inputs and no outputs are put in and looked at."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pared.growth.entries import Places, check_finite, gradients_at, makers, newest, places_of, readers, with_values
from pared.signals import private
from pared.signals.layers import LayerSlopes, layer_slopes
from pared.surgery import Structure, StructureError, insert
from pared.surgery.origins import grown_structure
from pared.types import Batch, Loss

SMALL = 1e-6
"""How large a probe's one input is: its output is linear in it, in float64, to rounding."""


@dataclass(frozen=True)
class _Probed:
    """A network with two more units for each weight that makes one: that weight is `SMALL` or -`SMALL` in them."""

    model: nn.Module
    structure: Structure
    units: Mapping[str, tuple[int, ...]]
    reads: Places


def linear_gradients(model: nn.Module, structure: Structure, batch: Batch, loss: Loss, name: str) -> Tensor:
    """M (makers, readers): the loss gradient of what reads a new unit, per unit of each weight that makes it.

    It is d2 L / d(makers) d(readers) at zero, where the unit's function is odd near zero; for others the mean of both
    sides'. Cost: one forward and one backward pass with 2 x makers more units.
    """
    probed = _probed(model, structure, name)
    rows, _ = gradients_at(probed.model, batch, loss, probed.reads)
    plus, minus = rows.chunk(2)
    return (plus - minus) / (2 * SMALL)


@dataclass(frozen=True)
class Desired:
    """What new units could do for a group's readers.

    `gain` (makers, readers): E[z v'], z what a new unit gives per unit of each weight that makes it, v what the loss
    asks of the readers beyond their reach; `moments` (makers, makers): E[z z'], summed over readers.
    """

    gain: Tensor
    moments: Tensor


def desired(model: nn.Module, structure: Structure, batch: Batch, loss: Loss, name: str) -> Desired:
    """Measures `Desired` for a group that linear layers, convolutions and recurrent layers read.

    Raises StructureError for other readers. Cost: one forward and one backward pass with 2 x makers more units, and
    least squares of each reader.
    """
    probed = _probed(model, structure, name)
    found = layer_slopes(probed.model, batch, loss)
    new: dict[str, list[Tensor]] = {}
    for other, units in probed.units.items():
        for parameter, where in places_of(probed.model, probed.structure[other], units, "out").items():
            new.setdefault(parameter, []).append(where.flatten())
    gains, moments, count = [], torch.zeros(()), len(batch.y)
    for parameter, where in probed.reads.items():
        layer = _layer(found, parameter, name)
        width = layer.inputs.shape[1]
        v = beyond_reach(layer, torch.cat(new[parameter]) % width)[:, torch.unique(where[0] // width)]
        columns = where.reshape(len(where), v.shape[1], -1)[:, 0] % width
        plus, minus = layer.inputs[:, columns].chunk(2, dim=1)
        z = (plus - minus) / (2 * SMALL)  # (rows, makers, entries of a unit)
        gains.append(torch.einsum("rmf,ro->mof", z, v).flatten(1) / count)
        moments = moments + torch.einsum("rmf,rnf->mn", z, z) / count
    return Desired(torch.cat(gains, dim=1), moments)


def beyond_reach(layer: LayerSlopes, without: Tensor | None = None) -> Tensor:
    """v (rows, o): minus the loss gradient, less the part that other weights of the layer could bring about.

    v = -(g - X X^+ g), X the layer's inputs with a column of ones where it has a bias; `without` names columns that are
    left out of X. Raises ValueError for values that are not finite.
    """
    check_finite(layer.slopes)
    check_finite(layer.inputs)
    columns = torch.ones(layer.inputs.shape[1], dtype=torch.bool)
    if without is not None:
        columns[without] = False
    x = layer.inputs[:, columns]
    if layer.bias is not None:
        x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
    within: Tensor = x @ (torch.linalg.pinv(x.T @ x, rtol=1e-10, hermitian=True) @ (x.T @ layer.slopes))
    return within - layer.slopes


def bottleneck(model: nn.Module, structure: Structure, batch: Batch, loss: Loss) -> dict[str, float]:
    """Group -> E ||v||^2: how much of what the loss asks of its readers no weights of theirs could bring about.

    v is minus the loss gradient of what the readers make, less its least-squares fit by what they read. The group of
    the largest value is where new units can do most. Groups that other than linear, convolutional and recurrent layers
    read are left out. Cost: one forward and one backward pass, and least squares of each layer.
    Source: Verbockhaven et al., Growing tiny networks (2024).
    """
    found = layer_slopes(model, batch, loss)
    sizes: dict[str, float] = {}
    for group in structure:
        read = {s.parameter for s in group.slices if s.role == "out"}
        if group.exact and read and read <= found.keys():
            v = [beyond_reach(found[parameter]).square().sum().item() for parameter in sorted(read)]
            sizes[group.name] = sum(v) / len(batch.y)
    return sizes


def _layer(found: Mapping[str, LayerSlopes], parameter: str, name: str) -> LayerSlopes:
    if parameter not in found:
        raise StructureError(
            f"{parameter!r}, which reads the units of {name!r}, is not multiplied by a linear layer, a convolution or "
            "a recurrent layer, so what it lacks cannot be projected; use gradmax, firefly or random_in"
        )
    return found[parameter]


def _probed(model: nn.Module, structure: Structure, name: str) -> _Probed:
    model = private(model)
    alike = structure.alike(name)
    one = dict.fromkeys(alike, 1)
    first, grown = insert(model, structure, one), grown_structure(structure, one)
    size = sum(where.shape[1] for where in makers(first, grown, newest(grown, one), name).values())
    counts = dict.fromkeys(alike, 2 * size)
    new, grown = insert(model, structure, counts).double(), grown_structure(structure, counts)
    units = newest(grown, counts)
    inputs = torch.cat([torch.eye(size), -torch.eye(size)]).double() * SMALL
    new = with_values(new, [(makers(new, grown, units, name), inputs)])
    return _Probed(new, grown, units, readers(new, grown, units, name))
