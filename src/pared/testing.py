"""pared's laws as functions to run on modules and criteria of your own; they raise AssertionError where one is broken.

    import pared.testing

pared.testing.check_model(MyNetwork().double(), torch.randn(4, 3).double())
pared.testing.check_criterion(my_criterion, model, batch, loss)
"""

import copy
import random as python_random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pared.data.batches import example as one_sample
from pared.data.batches import suited, suited_batch
from pared.signals import plain_parameters
from pared.surgery import Group, Plan, Structure, StructureError, cut, insert, mask, replay, trace
from pared.surgery.edit import replace_all
from pared.types import Batch, Criterion, Inputs, Loss

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 5e-3}
"""How far two outputs of one type may lie apart, relative to the largest entry (or 1)."""


def check_model(model: nn.Module, example: Inputs, seed: int = 0, structure: Structure | None = None) -> None:
    """Checks on one module what pared promises of every module it can trace.

    Law 1: `trace`, `cut`, `mask` and `replay` leave the model and the random states as they are, bit for bit.
    Law 3, for every group: a random plan leaves the network really smaller; the cut network computes what the masked
    one computes (groups marked `exact=False`: it runs, with outputs of the same shape); `replay` of the plan, through
    JSON, rebuilds it; with a unit inserted it computes the same. What `cut` or `insert` refuse with a StructureError
    is passed over. And units have no place of their own: in another order they compute the same. Then all groups at
    once.

    `example` is a tensor or a tuple of the model's inputs, several samples; take a model in float64 for the sharpest
    check (allowed differences: `TOLERANCES`). `structure` is one written by hand; without it the model is traced.
    Cost: about eight copies and forward passes a group.
    Raises: AssertionError naming the law, the group and the numbers; StructureError where the model cannot be traced.
    """
    x = suited(example, model)
    with _untouched(model, "tracing, masking or replaying"):
        found = trace(model, one_sample(x) if isinstance(x, Tensor) else x) if structure is None else structure
        whole = _outputs(model, x)
        generator = torch.Generator().manual_seed(seed)
        plans = [_random_plan(found, found.alike(group.name), generator) for group in found if group.width > 1]
        plans.append(_random_plan(found, [group.name for group in found], generator))
        for plan in plans:
            if found.removed(plan):
                _check_plan(model, found, found.bind(plan), x, whole)
        for names in dict.fromkeys(found.alike(group.name) for group in found if group.exact):
            _check_insert(model, found, names, x, whole, seed)
        for group in found:
            order = torch.randperm(group.width, generator=generator).tolist()
            _compare(_outputs(permuted(model, group, order), x), whole, f"reordering the units of {group.name!r}")


def check_criterion(
    criterion: Criterion, model: nn.Module, batch: Batch, loss: Loss, informed: bool = True, seed: int = 0
) -> None:
    """Checks on one criterion, one model and one batch what pared promises of every criterion.

    Law 1: model, gradients, modes, hooks, inputs and random states are as before, also after the loss raised.
    Law 2: scores are named and shaped like parameters, or like groups; finite, without a graph; the same for the same
    call, and whether the model is in training or evaluation mode. Reordering the units of a group reorders their
    scores and no others, unless `informed` is False: for criteria that do not look at the network, such as random.

    Cost: five calls of the criterion, and one a group.
    Raises: AssertionError naming the law, the place and the numbers.
    """
    batch = suited_batch(batch, model)
    used = _in_use(model)
    structure = trace(model, one_sample(batch.x))
    inputs = [tensor.clone() for tensor in _tensors(tuple(batch))]
    with _untouched(used, "the criterion"):
        scores = dict(criterion(used, batch, loss))
    with _untouched(used, "the criterion, when the loss raised,"):
        _check_failing_loss(criterion, used, batch)
    _check_scores(scores, used, structure)
    _same_scores(scores, criterion(used, batch, loss), "law 2 (determinism): the same call twice")
    _same_scores(scores, criterion(copy.deepcopy(used).eval(), batch, loss), "law 2: training and evaluation mode")
    if not all(torch.equal(a, b) for a, b in zip(inputs, _tensors(tuple(batch)), strict=True)):
        raise AssertionError("law 1: the criterion changed its inputs or targets")
    for group in structure if informed else ():
        order = torch.randperm(group.width, generator=torch.Generator().manual_seed(seed)).tolist()
        other = criterion(permuted(model, group, order), batch, loss)
        expected = {name: _reordered(name, values, group, order) for name, values in scores.items()}
        _same_scores(expected, other, f"law 2: reordering the units of {group.name!r}", exactly=False)


def permuted(model: nn.Module, group: Group, order: Sequence[int]) -> nn.Module:
    """A copy in which unit j of the group is what unit order[j] was; it computes the same."""
    copied = copy.deepcopy(model)
    tensors = plain_parameters(model) | dict(model.named_buffers())
    changed = {s.parameter: _reordered(s.parameter, tensors[s.parameter], group, order) for s in group.slices}
    replace_all(copied, changed)
    return copied


def _reordered(name: str, tensor: Tensor, group: Group, order: Sequence[int]) -> Tensor:
    """A parameter, or scores of one, or scores of the group, with the group's units in another order."""
    if name == group.name:
        return tensor[list(order)] if tensor.dim() else tensor
    for s in dict.fromkeys((s.axis, s.blocks, s.inner, s.offset) for s in group.slices if s.parameter == name):
        axis, blocks, inner, offset = s
        places = torch.arange(tensor.shape[axis])
        block = torch.arange(blocks)[:, None, None] * group.width * inner + offset + torch.arange(inner)
        old = block + torch.tensor(list(order))[:, None] * inner
        new = block + torch.arange(group.width)[:, None] * inner
        places[new.flatten()] = old.flatten()
        tensor = tensor.detach().index_select(axis, places.to(tensor.device))
    return tensor


def _random_plan(structure: Structure, names: Sequence[str], generator: torch.Generator) -> Plan:
    """Keeps some units of each group, as many in groups that must stay equally wide."""
    counts: dict[str, int] = {}
    for name in names:
        width = structure[name].width
        count = int(torch.randint(1, max(width, 2), (), generator=generator))
        for other in structure.alike(name):
            counts.setdefault(other, counts.get(name, count))
    keep = {}
    for name, count in counts.items():
        keep[name] = tuple(torch.randperm(structure[name].width, generator=generator)[:count].tolist())
    return Plan(keep)


def _check_plan(model: nn.Module, structure: Structure, plan: Plan, x: Inputs, whole: Sequence[Tensor]) -> None:
    where = ", ".join(f"{name!r} keeping units {list(units)}" for name, units in plan.keep.items())
    before = sum(p.numel() for p in model.parameters())
    try:
        with _untouched(model, "cut"):
            small = cut(model, structure, plan)
    except StructureError:
        return
    after = sum(p.numel() for p in small.parameters())
    if after >= before:
        raise AssertionError(f"law 3: cutting {where} leaves {after} of {before} parameters: nothing is smaller")
    out = _outputs(small, x)
    if all(structure[name].exact for name in structure.removed(plan)):
        _compare(out, _outputs(mask(model, structure, plan), x), f"cut and mask of {where}")
    elif [t.shape for t in out] != [t.shape for t in whole]:
        raise AssertionError(f"law 3: cutting {where} changes the shapes of the outputs")
    again = replay(Plan.from_json(plan.to_json()), model)
    again.load_state_dict(small.state_dict())
    if not all(torch.equal(a, b) for a, b in zip(_outputs(again, x), out, strict=True)):
        raise AssertionError(f"law 3: replaying the plan of {where} gives another network than cutting it")


def _check_insert(
    model: nn.Module, structure: Structure, names: Sequence[str], x: Inputs, whole: Sequence[Tensor], seed: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about tied weights, whose new units learn slowly
        try:
            grown = insert(model, structure, dict.fromkeys(names, 1), seed=seed)
        except StructureError:
            return
    _compare(_outputs(grown, x), whole, f"inserting a unit into {', '.join(map(repr, names))}")


def _outputs(model: nn.Module, x: Inputs) -> list[Tensor]:
    """All tensors that a copy in evaluation mode returns."""
    copied = copy.deepcopy(model).eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _tensors(copied(*((x,) if isinstance(x, Tensor) else x)))


def _compare(found: Sequence[Tensor], expected: Sequence[Tensor], what: str) -> None:
    if [t.shape for t in found] != [t.shape for t in expected]:
        raise AssertionError(
            f"law 3: {what}: outputs shaped {[tuple(t.shape) for t in found]} "
            f"instead of {[tuple(t.shape) for t in expected]}"
        )
    for one, two in zip(found, expected, strict=True):
        if not one.numel():
            continue
        size = max(1.0, float(two.abs().max())) if two.isfinite().all() else 1.0
        allowed = TOLERANCES.get(two.dtype, 0.0) * size
        apart = float((one.double() - two.double()).abs().max())
        if not apart <= allowed and not (one.isnan() & two.isnan()).all():
            raise AssertionError(f"law 3: {what}: outputs differ by {apart:.3g}, allowed are {allowed:.3g}")


def _in_use(model: nn.Module) -> nn.Module:
    """A copy in the middle of its life: gradients, hooks, training mode."""
    used = copy.deepcopy(model).train()
    for parameter in used.parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.grad = torch.ones_like(parameter)
    used.register_forward_hook(_nothing)
    return used


def _nothing(*_: Any) -> None:
    """A hook."""


class _LossError(Exception):
    """What the loss raises."""


def _check_failing_loss(criterion: Criterion, model: nn.Module, batch: Batch) -> None:
    called = False

    def loss(output: Tensor, target: Tensor) -> Tensor:
        nonlocal called
        called = True
        raise _LossError

    try:
        criterion(model, batch, loss)
    except _LossError:
        return
    if called:
        raise AssertionError("law 1: the criterion swallows what the loss raises, and returns scores of nothing")


def _check_scores(scores: Mapping[str, Tensor], model: nn.Module, structure: Structure) -> None:
    shapes = {name: tuple(p.shape) for name, p in plain_parameters(model).items()}
    widths = {group.name: (group.width,) for group in structure}
    if not scores:
        raise AssertionError("law 2: the criterion scores nothing")
    unknown = [name for name in scores if name not in shapes and name not in widths]
    if unknown:
        raise AssertionError(f"law 2: {unknown} name neither parameters nor groups; the groups are {list(widths)}")
    if len({name in widths for name in scores}) > 1:
        raise AssertionError(f"law 2: scores of weights and of units are mixed: {list(scores)}")
    for name, values in scores.items():
        allowed = [widths[name], ()] if name in widths else [shapes[name]]
        if tuple(values.shape) not in allowed:
            raise AssertionError(f"law 2: scores of {name!r} are shaped {tuple(values.shape)}, not {allowed[0]}")
        if not values.isfinite().all():
            raise AssertionError(f"law 2: scores of {name!r} are not finite: {values}")
        if values.requires_grad:
            raise AssertionError(f"law 2: scores of {name!r} carry a graph; detach them")


def _same_scores(first: Mapping[str, Tensor], second: Mapping[str, Tensor], what: str, exactly: bool = True) -> None:
    if first.keys() != second.keys():
        raise AssertionError(f"{what}: scores of {list(first)} and of {list(second)}")
    for name, one in first.items():
        two = second[name]
        same = torch.equal(one, two) if exactly else _near(one, two)
        if not same:
            raise AssertionError(f"{what}: scores of {name!r} are {two} instead of {one}")


def _near(one: Tensor, two: Tensor) -> bool:
    if one.shape != two.shape:
        return False
    allowed = 1e3 * TOLERANCES.get(one.dtype, 0.0) * float(one.abs().max() if one.numel() else 0.0)
    return bool(((one.double() - two.double()).abs() <= max(allowed, 1e-12)).all())


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = tuple(value.values())
    return [t for part in value for t in _tensors(part)] if isinstance(value, tuple | list) else []


class _untouched:  # noqa: N801 - reads as a sentence
    """A block after which the model, the global random states and the gradient mode must be what they were."""

    def __init__(self, model: nn.Module, who: str) -> None:
        self.model, self.who = model, who

    def __enter__(self) -> None:
        self.before, self.states = dict(_facts(self.model)), _global_states()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            return
        after = dict(_facts(self.model))
        if self.before.keys() != after.keys():
            raise AssertionError(f"law 1: {self.who} changed {sorted(self.before.keys() ^ after.keys())[0]}")
        for name, old in self.before.items():
            new = after[name]
            same = _identical(old, new) if isinstance(old, Tensor) else not isinstance(new, Tensor) and old == new
            if not same:
                raise AssertionError(f"law 1: {self.who} changed {name}")
        for name, old in self.states.items():
            if not np.array_equal(old, _global_states()[name]):
                raise AssertionError(f"law 1: {self.who} changed the {name}")


def _identical(one: Tensor, two: object) -> bool:
    return (
        isinstance(two, Tensor)
        and one.dtype == two.dtype
        and one.shape == two.shape
        and bool(((one == two) | ((one != one) & (two != two))).all())
    )


def _facts(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        yield f"the values of {name!r}", tensor.detach().clone()
        yield f"which tensor {name!r} is", id(tensor)
        yield f"requires_grad of {name!r}", tensor.requires_grad
        yield f"the gradient of {name!r}", None if tensor.grad is None else tensor.grad.clone()
    for name, module in model.named_modules():
        where = f"of {name!r}" if name else "of the model"
        yield f"the mode {where}", module.training
        yield f"the module {where}", id(module)
        yield f"the class {where}", (type(module), *sorted(vars(type(module)).keys() - {"__slotnames__"}))
        yield f"the attributes {where}", tuple(sorted(vars(module)))
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            yield f"the hooks {where} ({kind})", tuple(getattr(module, kind))


def _global_states() -> dict[str, Any]:
    _, keys, place, *more = np.random.get_state()
    return {
        "random state of torch": torch.get_rng_state().numpy().copy(),
        "random state of numpy": np.array([*np.asarray(keys), place, *map(float, more)]),
        "random state of Python": np.array(python_random.getstate()[1]),
        "gradient mode": np.array(torch.is_grad_enabled()),
    }
