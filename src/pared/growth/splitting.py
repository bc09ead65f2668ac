"""Units that split in two along the direction that lowers the loss most, alone or as candidates beside new ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pared.growth.entries import (
    Places,
    check_growth,
    gradients_at,
    makers,
    newest,
    places_of,
    readers,
    values_at,
    with_values,
)
from pared.signals import private
from pared.surgery import Structure, StructureError, insert, widen
from pared.surgery.origins import grown_structure
from pared.types import Batch, Loss

SIZE = 0.1
"""How far the halves of a unit move, relative to the weights that make it."""
STEPS = 10
"""How often the candidates of Firefly are improved before some are chosen."""


def splits(
    model: nn.Module, structure: Structure, batch: Batch, loss: Loss, counts: Mapping[str, int], seed: int = 0,
    size: float = SIZE,
) -> nn.Module:  # fmt: skip
    """Units split in two: weights theta +- eps v, each with half of the outputs, v the least eigenvector of S.

        L(eps) = L + eps^2 / 2 v' S v + ...,    S = E[dL/dh d2h/dtheta2],    eps = size ||theta||

    Those units split whose eigenvalues are least: below 0 the loss falls though its gradient may be zero. theta are the
    weights that make a unit, without those that read units of its group. The outputs change by O(size^2).

    Cost: a forward and a backward pass of a network with every unit twice, for each weight that makes one. Raises as
    `check_growth` and `widen` do, and ValueError for more units than there are to split.
    Source: Liu, Wu & Wang, Splitting steepest descent (2019).
    """
    check_growth(structure, batch, counts)
    for name, count in counts.items():
        if count > structure[name].width:
            raise ValueError(f"{name!r} has {structure[name].width} units, so that {count} cannot split; ask for fewer")
    while counts:
        names = [name for name in structure.alike(next(iter(counts))) if name in counts]
        found = {name: splitting(model, structure, batch, loss, name, size) for name in names}
        chosen = {name: found[name][0].argsort()[: counts[name]].tolist() for name in names}
        model, structure = widen(model, structure, chosen), grown_structure(structure, chosen)
        for name, units in chosen.items():
            model = _apart(model, structure, name, units, size, found[name][1][units])
        counts = {name: count for name, count in counts.items() if name not in names}
    return model


def splitting(
    model: nn.Module, structure: Structure, batch: Batch, loss: Loss, name: str, size: float = SIZE
) -> tuple[Tensor, Tensor]:
    """Each unit's least eigenvalue of S and its eigenvector: (units,) and (units, makers), as `splits` has them.

    S is measured at eps = size ||theta||, where S delta = dL/d delta of a network whose units are split by +-delta: for
    a ReLU, which is straight but for one place, there would be nothing to see at eps = 0. Cost and Raises as `splits`.
    """
    halves = _halves(model, structure, name)
    columns, eps = [], size * halves.theta.norm(dim=1)
    for weight in range(halves.theta.shape[1]):
        delta = torch.zeros_like(halves.theta)
        delta[:, weight] = eps
        columns.append(_pull(_split(halves, delta), halves.places, batch, loss) / eps[:, None])
    matrices = torch.stack(columns, dim=2)
    values, vectors = torch.linalg.eigh((matrices + matrices.mT) / 2)
    return values[:, 0], vectors[:, :, 0]


@dataclass(frozen=True)
class _Halves:
    """A network in which each unit of a group is there twice, each half as loud.

    `places` are those of the weights that make the units and read none of them, of both halves, (2 units, makers);
    `theta` are the values of the first halves, `reads` is what reads both.
    """

    model: nn.Module
    structure: Structure
    places: Places
    theta: Tensor
    reads: Places


def _halves(model: nn.Module, structure: Structure, name: str) -> _Halves:
    every = {other: range(structure[other].width) for other in structure.alike(name)}
    twice, grown = widen(private(model), structure, every).double(), grown_structure(structure, every)
    places = _own(twice, grown, name)
    reads = readers(twice, grown, {name: range(grown[name].width)}, name)
    return _Halves(twice, grown, places, values_at(twice, places)[: structure[name].width], reads)


def _own(model: nn.Module, structure: Structure, name: str) -> Places:
    """What makes the units of a group and reads none of them nor of those that must be as many."""
    return makers(model, structure, {n: range(structure[n].width) for n in structure.alike(name)}, name)


def _rows(places: Places, units: Sequence[int]) -> Places:
    return {parameter: where[list(units)] for parameter, where in places.items()}


def _split(halves: _Halves, delta: Tensor) -> nn.Module:
    return with_values(halves.model, [(halves.places, torch.cat([halves.theta + delta, halves.theta - delta]))])


def _pull(model: nn.Module, places: Places, batch: Batch, loss: Loss) -> Tensor:
    """dL/d delta (units, makers), where the halves are theta +- delta."""
    first, second = gradients_at(model, batch, loss, places)[0].chunk(2)
    return first - second


def _apart(
    model: nn.Module, structure: Structure, name: str, units: Sequence[int], size: float, directions: Tensor
) -> nn.Module:
    """The last units of a group are copies of `units`: both move, by +-size of their length."""
    places, width = _own(model, structure, name), structure[name].width
    olds, copies = _rows(places, units), _rows(places, range(width - len(units), width))
    theta = values_at(model, olds)
    delta = size * theta.norm(dim=1, keepdim=True) * directions.to(theta)
    return with_values(model, [(olds, theta + delta), (copies, theta - delta)])


@dataclass(frozen=True)
class _Candidates:
    """Directions that halves move along, and what makes and reads new units; each of the length that it may have."""

    delta: Tensor
    inputs: Tensor
    outputs: Tensor

    def moved(self, slopes: "_Candidates") -> "_Candidates":
        """A step downhill as long as they are, and back to that length."""
        pairs = ((self.delta, slopes.delta), (self.inputs, slopes.inputs), (self.outputs, slopes.outputs))
        return _Candidates(*(_as_long(_unit(one) - _unit(two), one) for one, two in pairs))


def _unit(rows: Tensor) -> Tensor:
    unit: Tensor = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-300)
    return unit


def _as_long(rows: Tensor, like: Tensor) -> Tensor:
    length: Tensor = like.norm(dim=1, keepdim=True)
    return length * _unit(rows)


def firefly(
    model: nn.Module, structure: Structure, batch: Batch, loss: Loss, counts: Mapping[str, int], seed: int = 0,
    size: float = SIZE,
) -> nn.Module:  # fmt: skip
    """The best of all ways to grow a little: units split in two, and new units, improved together, then chosen.

    Candidates are all units, split as theta +- delta, ||delta|| = size ||theta||, and as many new ones and `count`
    more, as long as units are on average, with outputs `size` as long. All deltas, inputs and outputs take 10
    steps downhill, brought back to their lengths. Then those `count` are taken by which the loss falls most, to first
    order from half the way: -<delta, dL/d delta> and -<outputs, dL/d outputs> where both are half as long. Weights that
    read units of the own group are left as they are, new ones at zero. The outputs change by O(size).

    Cost: 33 forward and backward passes of a network more than three times as wide in the group. Raises as
    `check_growth` and `widen` do, StructureError for groups that must be as wide as others, such as the layers and
    directions of one nn.LSTM, whatever their counts.
    Source: Wu, Liu, Stone & Liu, Firefly neural architecture descent (2020).
    """
    check_growth(structure, batch, counts)
    for name, count in counts.items():
        if len(names := structure.alike(name)) > 1:
            raise StructureError(f"{', '.join(names)} must be equally wide; split them with pared.split_layers first")
        width = structure[name].width
        wide = _wide(model, structure, name, width + count)
        found = _candidates(wide, seed, size)
        for _ in range(STEPS):
            found = found.moved(wide.slopes(found, batch, loss))
        half = wide.slopes(found, batch, loss, 0.5)
        falls = torch.cat([(found.delta * half.delta).sum(dim=1), (found.outputs * half.outputs).sum(dim=1)])
        best = falls.argsort()[:count].tolist()
        old, new = [unit for unit in best if unit < width], [unit - width for unit in best if unit >= width]
        if old:
            model, structure = widen(model, structure, {name: old}), grown_structure(structure, {name: old})
            model = _apart(model, structure, name, old, size, _unit(found.delta[old]))
        if new:
            model = _with_new(model, structure, name, found, new)
            structure = grown_structure(structure, {name: len(new)})
    return model


@dataclass(frozen=True)
class _Wide:
    """The halves of a group's units and silent new ones beside them, and where all of them are made and read."""

    halves: _Halves
    model: nn.Module
    pairs: Places
    made: Places
    read: Places

    def slopes(self, at: _Candidates, batch: Batch, loss: Loss, share: float = 1.0) -> _Candidates:
        """The loss gradient, where all deltas and outputs are that share of their length."""
        theta, delta = self.halves.theta, share * at.delta
        halves = (self.pairs, torch.cat([theta + delta, theta - delta]))
        tried = with_values(self.model, [halves, (self.made, at.inputs), (self.read, share * at.outputs)])
        inputs, outputs = (gradients_at(tried, batch, loss, places)[0] for places in (self.made, self.read))
        return _Candidates(_pull(tried, self.pairs, batch, loss), inputs, outputs)


def _wide(model: nn.Module, structure: Structure, name: str, extra: int) -> _Wide:
    halves = _halves(model, structure, name)
    big, grown = insert(halves.model, halves.structure, {name: extra}), grown_structure(halves.structure, {name: extra})
    old = range(2 * structure[name].width)
    new = newest(grown, {name: extra})[name]
    whole = places_of(big, grown[name], new, "in")
    big = with_values(big, [(whole, torch.zeros_like(values_at(big, whole)))])
    made, read = _own(big, grown, name), readers(big, grown, {name: range(grown[name].width)}, name)
    return _Wide(halves, big, _rows(made, old), _rows(made, new), _rows(read, new))


def _candidates(wide: _Wide, seed: int, size: float) -> _Candidates:
    """Drawn by chance, as long as they may be."""
    theta, generator = wide.halves.theta, torch.Generator().manual_seed(seed)
    reading = values_at(wide.model, wide.read)
    others = 2 * values_at(wide.halves.model, wide.halves.reads)

    def drawn(like: Tensor, length: Tensor) -> Tensor:
        return length * _unit(torch.randn(like.shape, generator=generator, dtype=torch.float64))

    lengths = theta.norm(dim=1, keepdim=True)
    made = values_at(wide.model, wide.made)
    return _Candidates(
        drawn(theta, size * lengths), drawn(made, lengths.mean()), drawn(reading, size * others.norm(dim=1).mean())
    )


def _with_new(model: nn.Module, structure: Structure, name: str, found: _Candidates, which: Sequence[int]) -> nn.Module:
    """Some of the new candidates, at the end of their group."""
    counts = {name: len(which)}
    new, grown = insert(model, structure, counts), grown_structure(structure, counts)
    units = newest(grown, counts)[name]
    whole = places_of(new, grown[name], units, "in")
    made = _rows(_own(new, grown, name), units)
    read = _rows(readers(new, grown, {name: range(grown[name].width)}, name), units)
    zeros = torch.zeros_like(values_at(new, whole))
    return with_values(new, [(whole, zeros), (made, found.inputs[list(which)]), (read, found.outputs[list(which)])])
