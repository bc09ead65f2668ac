"""What a study takes out of networks, and how: units, weights or whole layers; its random and its fresh controls."""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from pared import criteria, evaluation
from pared.compensate import compensate
from pared.dead import shed_dead_units
from pared.masks import WeightScope, density, mask_weights, select_weights
from pared.outcomes import Removal, Trained
from pared.reconstruct import refit_layers
from pared.selection import Count, Ratio, Rule, Scope, Threshold, select
from pared.signals import prunable
from pared.sizes import Pool, Pools
from pared.surgery import Drop, Plan, Structure, StructureError, cut, drop_layer, droppable
from pared.surgery.structure import as_units
from pared.types import Batch, Criterion, Loss, Masks

What = Literal["units", "weights", "layers"]

Build = Callable[[int, Mapping[str, int]], nn.Module]
"""`build(seed, widths)`: a freshly initialised network; `widths` (group name -> units) asks for a smaller one, in which
a layer of 0 units is left out."""

Scored = Mapping[str, Tensor]
Smaller = tuple[nn.Module, Removal]


@dataclass(frozen=True)
class Subject:
    """A trained network that is to lose something, training examples to look at, and the loss it was trained by."""

    model: nn.Module
    structure: Structure
    batch: Batch
    loss: Loss


class Cutting(Protocol):
    """What networks lose, and how: `Units`, `Weights` or `Layers`. Nothing changes what is passed in.

    scores     what may go, scored: higher = keep;
    pools      how much of it is ranked together;
    ways       the network without what a rule removes, repaired: one, or several ways of which the best will stay;
    at_random  the network without as much, drawn at random, repaired alike;
    fresh      a new network of the size that was left;
    finished   what is made of a smaller network once it is trained;
    size       the number that is to become small;
    tries      how many ways there are at most.
    """

    @property
    def what(self) -> What: ...
    @property
    def tries(self) -> int: ...
    def scores(self, subject: Subject) -> Scored: ...
    def pools(self, scores: Scored) -> Pools: ...
    def ways(self, subject: Subject, scores: Scored, rule: Rule) -> Sequence[Smaller]: ...
    def at_random(self, subject: Subject, removal: Removal, seed: int) -> Smaller: ...
    def fresh(self, build: Build, seed: int, structure: Structure, removal: Removal) -> nn.Module: ...
    def finished(self, trained: Trained, x: Tensor) -> Trained: ...
    def size(self, model: nn.Module) -> int: ...


@dataclass(frozen=True)
class Units:
    """Hidden units: the lowest-scored go, and what read them is refitted by least squares."""

    criterion: Criterion = criteria.taylor
    scope: Scope = "global"
    keep: tuple[str, ...] = ()

    @property
    def what(self) -> What:
        return "units"

    @property
    def tries(self) -> int:
        return 1

    def scores(self, subject: Subject) -> Scored:
        return unit_scores(subject, self.criterion)

    def pools(self, scores: Scored) -> Pools:
        widths = {name: Pool(len(values)) for name, values in scores.items() if not _matches(name, self.keep)}
        return _together(widths, self.scope == "global")

    def ways(self, subject: Subject, scores: Scored, rule: Rule) -> Sequence[Smaller]:
        return [_without_units(subject, select(scores, subject.structure, rule, self.scope, self.keep))]

    def at_random(self, subject: Subject, removal: Removal, seed: int) -> Smaller:
        scores = criteria.random(subject.model, subject.batch, subject.loss, seed=seed)
        return _without_units(subject, same_counts(removal.plan, scores, subject.structure))

    def fresh(self, build: Build, seed: int, structure: Structure, removal: Removal) -> nn.Module:
        return build(seed, {name: len(units) for name, units in removal.plan.keep.items()})

    def finished(self, trained: Trained, x: Tensor) -> Trained:
        return trained

    def size(self, model: nn.Module) -> int:
        return evaluation.parameters(model)


def unit_scores(subject: Subject, criterion: Criterion) -> Scored:
    """A criterion's scores per unit, whether it scores units or weights."""
    return as_units(criterion(subject.model, subject.batch, subject.loss), subject.structure)


def same_counts(plan: Plan, scores: Scored, structure: Structure) -> Plan:
    """A plan that keeps as many units of each group as `plan` does, the highest-scored ones."""
    keep = {
        name: tuple(scores[name].argsort(descending=True, stable=True)[: len(units)].tolist())
        for name, units in plan.keep.items()
    }
    return structure.bind(Plan(keep))


def _without_units(subject: Subject, plan: Plan) -> Smaller:
    repaired = compensate(subject.model, subject.structure, plan, subject.batch.x)
    left = sum(map(len, plan.keep.values())) / sum(subject.structure[name].width for name in plan.keep)
    return cut(repaired, subject.structure, plan), Removal(plan, 1 - left)


@dataclass(frozen=True)
class Weights:
    """Single weights: the lowest-scored become zero, and stay zero while the others are trained on. Biases stay.

    Layer by layer, the other weights are refitted by least squares before. After the training, units that nothing reads
    or makes any more are taken out, too.
    """

    criterion: Criterion = criteria.obd
    scope: WeightScope = "global"
    keep: tuple[str, ...] = ()

    @property
    def what(self) -> What:
        return "weights"

    @property
    def tries(self) -> int:
        return 1

    def scores(self, subject: Subject) -> Scored:
        found, weights = self.criterion(subject.model, subject.batch, subject.loss), prunable(subject.model).shapes
        scores = {name: values for name, values in found.items() if name in weights}
        if not scores:
            raise ValueError(
                f"the criterion scores {', '.join(found)}, which are no weights; weights go by scores of weights, "
                "such as magnitude or obd"
            )
        return _unprotected(scores, self.keep)

    def pools(self, scores: Scored) -> Pools:
        return _together({name: Pool(values.numel(), 0) for name, values in scores.items()}, self.scope == "global")

    def ways(self, subject: Subject, scores: Scored, rule: Rule) -> Sequence[Smaller]:
        if not isinstance(rule, Ratio | Threshold | Count):
            raise ValueError(f"weights are removed by a ratio, a threshold or a count, got {rule}")
        masks = select_weights(scores, rule, self.scope)
        if density(masks) == 1 and not isinstance(rule, Threshold):
            raise ValueError(f"{rule} removes nothing from {sum(map(Tensor.numel, masks.values()))} weights")
        return [_silenced(subject, masks)]

    def at_random(self, subject: Subject, removal: Removal, seed: int) -> Smaller:
        assert removal.masks is not None
        generator = torch.Generator().manual_seed(seed)
        masks = {
            name: mask.flatten()[torch.randperm(mask.numel(), generator=generator)].view_as(mask)
            for name, mask in removal.masks.items()
        }
        return _silenced(subject, masks)

    def fresh(self, build: Build, seed: int, structure: Structure, removal: Removal) -> nn.Module:
        return mask_weights(build(seed, {}), removal.masks or {})

    def finished(self, trained: Trained, x: Tensor) -> Trained:
        if trained.removal is None or trained.fit.diverged:
            return trained
        model, plan = shed_dead_units(trained.fit.model, x)
        return Trained(replace(trained.fit, model=model), replace(trained.removal, plan=plan))

    def size(self, model: nn.Module) -> int:
        return evaluation.nonzeros(model)


def _silenced(subject: Subject, masks: Masks) -> Smaller:
    repaired = refit_layers(subject.model, subject.batch, subject.loss, masks)
    return repaired.model, Removal(Plan({}), 1 - density(masks), masks)


@dataclass(frozen=True)
class Layers:
    """Whole hidden layers and residual blocks, one after the other; what read them is refitted by least squares.

    The lowest-scored goes first, and the rest is scored anew: the score of a layer is its place in this order. Layers
    are few, and no score tells well what training will make up for: of the last one to go, the `tries` lowest-scored
    ones are each tried. One layer always stays, and one recurrent layer where there were any.
    """

    criterion: Criterion = criteria.replaceability
    keep: tuple[str, ...] = ()
    tries: int = 3

    @property
    def what(self) -> What:
        return "layers"

    def scores(self, subject: Subject) -> Scored:
        found = self._scored(subject)
        if not _free(subject.model, found):
            raise StructureError(
                f"no hidden layer may go: of {', '.join(found)} one must stay (and one recurrent layer where there is "
                "any); give the network more layers (such as --recurrent 16,16 or --hidden 64,64), or protect fewer"
            )
        places = {name: torch.tensor(torch.inf) for name in found}
        place, now = 0, subject
        while free := _free(now.model, found):
            name = min(free, key=lambda name: float(found[name]))
            now, _ = _without_layer(now, Plan({}), name)
            places[name], place = torch.tensor(float(place)), place + 1
            try:
                found = self._scored(now)
            except StructureError:  # the criterion has nothing to say on the layers that are left
                break
        return places

    def _scored(self, subject: Subject) -> Scored:
        found = self.criterion(subject.model, subject.batch, subject.loss)
        if any(values.dim() or values.isnan() for values in found.values()):
            raise ValueError(
                f"the criterion scores {', '.join(found)}, not each by one number; layers go by scores of layers, "
                "such as replaceability or cka"
            )
        return _unprotected(found, self.keep)

    def pools(self, scores: Scored) -> Pools:
        return {"all layers": Pool(len(scores), sum(bool(place.isinf()) for place in scores.values()))}

    def ways(self, subject: Subject, scores: Scored, rule: Rule) -> Sequence[Smaller]:
        most = sum(bool(place.isfinite()) for place in scores.values())
        if not isinstance(rule, Ratio | Count):
            raise ValueError(f"layers are removed by a ratio or a count, got {rule}")
        count = rule.units if isinstance(rule, Count) else min(round(rule.fraction * len(scores)), most)
        if not 0 < count <= most:
            raise ValueError(f"{rule} removes {count} of {len(scores)} layers, of which 1 to {most} may go")
        order = sorted(scores, key=lambda name: float(scores[name]))
        now, plan = subject, Plan({})
        for name in order[: count - 1]:
            now, plan = _without_layer(now, plan, name)
        free = _free(now.model, {name: scores[name] for name in order[count - 1 :]})
        found = (_without_layer(now, plan, name) for name in list(free)[: self.tries])
        return [(smaller.model, Removal(ways, count / len(scores))) for smaller, ways in found]

    def at_random(self, subject: Subject, removal: Removal, seed: int) -> Smaller:
        generator, now, plan = torch.Generator().manual_seed(seed), subject, Plan({})
        for _ in removal.plan.before:
            names = _unprotected(dict.fromkeys(droppable(now.model, now.batch.x), torch.zeros(())), self.keep)
            free = list(_free(now.model, names))
            now, plan = _without_layer(now, plan, free[int(torch.randint(len(free), (), generator=generator))])
        return now.model, Removal(plan, removal.share)

    def fresh(self, build: Build, seed: int, structure: Structure, removal: Removal) -> nn.Module:
        gone = [edit.modules[0] for edit in removal.plan.before if isinstance(edit, Drop)]
        groups = {
            layer: [g.name for g in structure if g.name == layer or g.name.startswith(f"{layer}.l")] for layer in gone
        }
        return build(seed, {name: 0 for layer in gone for name in groups[layer] or [layer]})

    def finished(self, trained: Trained, x: Tensor) -> Trained:
        return trained

    def size(self, model: nn.Module) -> int:
        return evaluation.parameters(model)


def _free(model: nn.Module, scores: Scored) -> Scored:
    """The layers that may go: never the last one, nor the last recurrent one."""
    recurrent = [name for name in scores if isinstance(model.get_submodule(name), nn.RNNBase)]
    last = recurrent if len(recurrent) == 1 else list(scores) if len(scores) == 1 else []
    return {name: score for name, score in scores.items() if name not in last}


def _without_layer(subject: Subject, plan: Plan, name: str) -> tuple[Subject, Plan]:
    model, edit = drop_layer(subject.model, name, subject.batch.x)
    return replace(subject, model=model), plan.then(edit)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _unprotected(scores: Scored, keep: tuple[str, ...]) -> Scored:
    """What may go. Raises ValueError for a pattern that matches nothing, and where nothing is left."""
    if unmatched := [pattern for pattern in keep if not fnmatch.filter(scores, pattern)]:
        raise ValueError(f"{unmatched[0]!r} in keep matches none of {', '.join(scores)}")
    found = {name: values for name, values in scores.items() if not _matches(name, keep)}
    if not found:
        raise ValueError("everything that could go is protected; protect less")
    return found


def _together(pools: dict[str, Pool], as_one: bool) -> Pools:
    if not as_one:
        return pools
    parts, fewest = (sum(values) for values in zip(*pools.values(), strict=True)) if pools else (0, 0)
    return {"all layers": Pool(parts, fewest)}
