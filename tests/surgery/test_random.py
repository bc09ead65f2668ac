"""The laws of surgery on random networks from every layer and operation that pared cuts, on random plans, in float64.

`insert(...) == identity` joins the laws below as soon as there is `pared.insert`.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import pared
from networks import snapshot, unchanged
from pared import criteria
from pared.signals import gated, open_gates
from pared.surgery import Group, Plan, Structure, StructureError, by_unit, cut, mask, replay, trace
from pared.types import Batch
from random_networks import KINDS, WITHOUT_WEIGHTS, Spec, specs
from random_networks.plans import exact_plan, orders, reordered

QUIET = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))
REFUSED = 0.02
"""The largest share of networks that may be refused."""


@dataclass
class Tally:
    """What was seen over all examples."""

    networks: int = 0
    groups: int = 0
    inexact: int = 0
    units: int = 0
    gone: int = 0
    cut: int = 0
    heard: int = 0
    grown: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    touched: Counter[str] = field(default_factory=Counter)

    def report(self) -> str:
        """One paragraph for whoever runs the slow suite."""
        return (
            f"{self.networks} networks, {sum(self.refused.values())} refused {dict(self.refused)}; "
            f"{self.groups} groups, {self.inexact} not exact; {self.gone} of {self.units} units removed; "
            f"{self.cut} networks cut, {self.heard} whose output moved, {self.grown} grown"
        )


def tensors(value: Any) -> list[Tensor]:
    """All tensors in what a network returns, in order."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [tensor for part in parts for tensor in tensors(part)]


def same(first: Any, second: Any, tolerance: float = 1e-12) -> None:
    """Outputs equal to the tolerance; 0 asks for the same bits."""
    pairs = list(zip(tensors(first), tensors(second), strict=True))
    assert pairs
    for one, two in pairs:
        assert one.isfinite().all()
        torch.testing.assert_close(one, two, atol=tolerance, rtol=tolerance)


def held(model: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    return getattr(model.get_submodule(path), leaf)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def really_smaller(model: nn.Module, small: nn.Module, structure: Structure, plan: Plan) -> None:
    """Every axis that a removed unit has entries on is shorter by exactly these; all others are as long as before."""
    gone: dict[tuple[str, int], set[int]] = {}
    for name, units in structure.removed(plan).items():
        for s in structure[name].slices:
            gone.setdefault((s.parameter, s.axis), set()).update(s.indices(structure[name].width, units))
    for name in {parameter for parameter, _ in gone}:
        before, after = held(model, name).shape, held(small, name).shape
        assert after == tuple(n - len(gone.get((name, axis), ())) for axis, n in enumerate(before)), name
    assert (parameters(small) < parameters(model)) == bool(gone)


def insert_is_identity(model: nn.Module, structure: Structure, x: Tensor, tally: Tally) -> None:
    """New units in every group that can grow exactly change nothing. Single units may not say how they would."""
    sets = [set(names) for names in structure.equal]
    exact = {group.name for group in structure if group.exact and group.width > 1}
    counts = {name: 1 for name in exact if all(names <= exact for names in sets if name in names)}
    if not counts:
        return
    try:
        grown = pared.insert(model, structure, counts)
    except StructureError as error:
        if "projection is as wide as its cells" not in str(error):
            raise
        return
    tally.grown += 1
    assert parameters(grown) > parameters(model)
    same(grown(x), model(x), 1e-12)


def replayed(spec: Spec, small: nn.Module, plan: Plan, x: Tensor) -> None:
    """A plan that went through JSON makes another network of the kind as small, and the weights fit."""
    again = replay(Plan.from_json(plan.to_json()), spec.build(seed=spec.seed + 1))
    again.load_state_dict(small.state_dict())
    same(again(x), small(x), 0.0)


def runnable(model: nn.Module, structure: Structure, plan: Plan) -> Plan:
    """The plan; one that leaves an LSTM's projection as wide as its cells, which PyTorch cannot run, is refused."""
    try:
        cut(model, structure, plan)
    except StructureError as error:
        if "projection is as wide as its cells" not in str(error):
            raise
        return structure.bind(Plan({n: units for n, units in plan.keep.items() if not _is_projected(structure[n])}))
    return plan


def _is_projected(group: Group) -> bool:
    return any(".weight_hr_" in s.parameter for s in group.slices)


def cut_again(small: nn.Module, x: Tensor, seed: int) -> None:
    """What was cut can be traced and cut once more."""
    structure = trace(small, x)
    plan = runnable(small, structure, structure.bind(exact_plan(structure, seed)))
    smaller = cut(small, structure, plan)
    same(smaller(x), mask(small, structure, plan)(x))
    really_smaller(small, smaller, structure, plan)


def gate_gradients(model: nn.Module, structure: Structure, x: Tensor) -> dict[str, Tensor]:
    """How the output moves when a unit fades: what gradient criteria are made from."""
    gates = {name: gate.requires_grad_() for name, gate in open_gates(model, structure).items()}
    value = sum(
        (t * torch.linspace(0.5, 1.5, t.numel()).view_as(t)).sum() for t in tensors(gated(model, structure)(gates, x))
    )
    gradients = torch.autograd.grad(value, list(gates.values()), allow_unused=True)
    return {n: torch.zeros_like(g) if d is None else d for (n, g), d in zip(gates.items(), gradients, strict=True)}


SIMPLE = {"dense", "activation", "residual", "concatenated", "repeated", "fit", "linear_last", "conv"}
"""Networks of these alone are understood by the criteria that look at activations, too."""


def scores(spec: Spec, model: nn.Module, structure: Structure, x: Tensor) -> list[dict[str, Tensor]]:
    """Scores of units by all criteria that apply to a network."""
    data = Batch(x, torch.zeros(len(x), 1, dtype=torch.float64))
    found = [by_unit(criteria.magnitude(model, data, mse_loss), structure)]
    if not any(nn.utils.parametrize.is_parametrized(module) for module in model.modules()):
        found.append(gate_gradients(model, structure, x))
        if spec.kinds() <= SIMPLE and spec.given.kind in ("rows", "steps") and spec.head == "plain":
            found += [criteria.activation(model, data, mse_loss), criteria.taylor(model, data, mse_loss)]
    return found


def equivariant(spec: Spec, model: nn.Module, structure: Structure, x: Tensor, seed: int) -> None:
    """Units in another order are the same network, and take their scores with them."""
    order = orders(structure, seed)
    moved = reordered(model, structure, order)
    same(moved(x), model(x), 1e-10)
    pairs = zip(scores(spec, model, structure, x), scores(spec, moved, structure, x), strict=True)
    for before, after in pairs:
        assert before.keys() == after.keys()
        for name in before:
            torch.testing.assert_close(after[name], before[name][order[name]], rtol=1e-8, atol=1e-10)


def laws(spec: Spec, seed: int, tally: Tally) -> None:
    """All laws on one network and one plan."""
    model, x = spec.build(), spec.input()
    before = snapshot(model)
    tally.networks += 1
    tally.kinds.update(spec.kinds())
    try:
        structure = trace(model, x)
    except StructureError as error:
        unchanged(before, model)
        tally.refused[str(error).splitlines()[0]] += 1
        note(str(error))
        return
    plan = structure.bind(exact_plan(structure, seed))
    note(str(plan.keep))
    plan = runnable(model, structure, plan)
    small, masked = cut(model, structure, plan), mask(model, structure, plan)
    same(small(x), masked(x))
    really_smaller(model, small, structure, plan)
    replayed(spec, small, plan, x)
    cut_again(small, x, seed)
    equivariant(spec, model, structure, x, seed)
    insert_is_identity(model, structure, x, tally)
    unchanged(before, model)
    count(tally, spec, structure, plan, [a - b for a, b in zip(tensors(masked(x)), tensors(model(x)), strict=True)])


def count(tally: Tally, spec: Spec, structure: Structure, plan: Plan, moved: list[Tensor]) -> None:
    removed = structure.removed(plan)
    tally.groups += len(structure.groups)
    tally.inexact += sum(not group.exact for group in structure)
    tally.units += structure.units
    tally.gone += sum(map(len, removed.values()))
    tally.cut += bool(removed)
    tally.heard += any(bool((difference.abs() > 1e-9).any()) for difference in moved)
    paths = [s.parameter for name in removed for s in structure[name].slices]
    tally.touched.update({kind for kind, path in spec.places() if any(p.startswith(path) for p in paths)})


def examine(examples: int, same_ones: bool = False) -> Tally:
    """The laws on so many random networks, the same ones every time if asked."""
    tally = Tally()

    @given(specs(), st.integers(0, 2**16))
    @settings(QUIET, max_examples=examples, derandomize=same_ones)
    def law(spec: Spec, seed: int) -> None:
        laws(spec, seed, tally)

    law()
    return tally


def test_random_networks_keep_the_laws():
    tally = examine(15)
    assert tally.networks >= 15
    assert tally.gone > 0
    assert tally.grown > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_random_networks_keep_the_laws_at_length(capsys):
    tally = examine(2000, same_ones=True)  # what they cover is no matter of luck
    with capsys.disabled():
        print(f"\n{tally.report()}")
    assert tally.networks >= 2000
    assert sum(tally.refused.values()) <= REFUSED * tally.networks
    assert tally.heard >= 0.9 * tally.cut >= 0.8 * tally.networks
    assert tally.grown >= 0.8 * tally.networks
    assert tally.kinds.keys() == KINDS
    assert tally.touched.keys() >= KINDS - WITHOUT_WEIGHTS
