"""Which engine trains a member of a fleet, and why."""

from typing import Literal, NamedTuple, get_args

from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from pared.training import batched, kernel
from pared.training.batched import Member
from pared.training.fit import TrainConfig, TrainingData, is_plain
from pared.training.stacks import answers, stack_of, takes
from pared.types import Loss

Engine = Literal["auto", "kernel", "batched", "loop"]
FEW = 8  # twice as fast in step as the loop, or more; a single one may be slower
MOST_PRODUCTS = 2**22  # of a batch; there convolutions gain a tenth, dense layers still double


class Choice(NamedTuple):
    """An engine, and a sentence that says why it was taken."""

    engine: Engine
    reason: str


def engine_of(
    model: nn.Module, split: TrainingData, config: TrainConfig, loss: Loss = mse_loss, engine: Engine = "auto"
) -> Choice:
    """The engine that `fit_many` trains a member with, and why.

    "kernel": a plain stack of layers, where numba is. "batched": such a stack where it is not, or another small module
    that `torch.func` can follow; in a fleet with at least eight members that are alike, else they go to the loop.
    "loop": all others. Raises ValueError for an `engine` that cannot train the member.
    """
    return choose(Member(model, split, config, None), loss, engine)


def choose(member: Member, loss: Loss, engine: Engine) -> Choice:
    """As `engine_of`, for a member that may go on from an earlier fit."""
    if engine not in get_args(Engine):
        raise ValueError(f"unknown engine {engine!r}; choose one of {', '.join(get_args(Engine))}")
    if engine == "loop":
        return Choice("loop", "asked for")
    refusals = {"kernel": _beyond_kernel, "batched": _beyond_batched}
    if engine != "auto":
        if (refusal := refusals[engine](member, loss)) is not None:
            raise ValueError(f"{refusal}; use engine='auto'")
        return Choice(engine, "asked for")
    if (beyond_kernel := _beyond_kernel(member, loss)) is None:
        return Choice("kernel", "a plain stack of layers")
    reason = _too_large(member) or _beyond_batched(member, loss)
    return Choice("loop", reason) if reason else Choice("batched", beyond_kernel)


def _beyond_kernel(member: Member, loss: Loss) -> str | None:
    """Why the kernel cannot train a member; None where it can."""
    if member.config.bound or member.config.plateau:
        return "some of its hyperparameters follow schedules"
    if not kernel.supports(member.start, loss):
        return "numba is not there" if not kernel.available() else "it is no small plain stack of layers and usual loss"
    if not kernel.reads(member.start, member.split, loss):
        return "its data are not what its layers take in float32"
    return None if is_plain(member.resume, member.config) else "its optimiser goes on from a state of another kind"


def _beyond_batched(member: Member, loss: Loss) -> str | None:
    """Why a member cannot be trained in step with others; None where it can."""
    if member.config.bound or member.config.plateau:
        return "some of its hyperparameters follow schedules"
    if member.masks:
        return "some of its weights are to stay zero"
    if not is_plain(member.resume, member.config):
        return "its optimiser goes on from a state of another kind"
    stack, parts = stack_of(member.start), [p for p in (member.split.train, member.split.validation) if len(p.x)]
    if (
        stack is not None
        and loss in (mse_loss, cross_entropy)
        and all(weight.requires_grad for weight in stack.parameters)
        and all(takes(stack, x) and answers(stack, x, y, loss) for x, y in parts)
    ):
        return None
    return batched.cannot_follow(member, loss)


def _too_large(member: Member) -> str | None:
    """Whether a step is so much work that calls cost little beside it, by an upper bound of its products."""
    weights, x = list(member.start.parameters()), member.split.train.x
    products = sum(weight.numel() for weight in weights) * member.config.batch_size
    if stack_of(member.start) is not None:
        too_many = products > kernel.MOST_WEIGHTS * 64
    else:
        shared = x.ndim > 2 or any(weight.ndim > 2 for weight in weights)  # weights may meet every entry of a sample
        too_many = products * (x[0].numel() if shared else 1) > MOST_PRODUCTS
    return "its matrices are large enough to fill the processor one by one" if too_many else None


def waves(members: dict[int, Member], jobs: int, few: int = FEW) -> tuple[list[list[int]], list[int]]:
    """Members that are alike in groups of bounded memory, and those that have fewer than `few` like them."""
    groups: dict[object, list[int]] = {}
    for index, member in members.items():
        groups.setdefault(batched.together(member), []).append(index)
    found, alone = [], []
    for group in groups.values():
        if len(group) < few:
            alone += group
            continue
        most = min(batched.most_at_once(members[group[0]]), -(-len(group) // jobs))
        found += [group[start : start + most] for start in range(0, len(group), most)]
    return found, alone
