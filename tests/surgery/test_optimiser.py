"""Training goes on: optimiser states, averages and masks after a cut, an insertion, a widening."""

import copy
import dataclasses
import itertools
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from growing import ZOO, Net, built
from networks import batch, forecaster, mlp
from pared.surgery import Plan, StructureError, carry, carry_tensors, cut, insert, mask, trace, widen
from pared.surgery.origins import grown_structure
from pared.training import TrainConfig, fit
from pared.types import Batch

OPTIMISERS = {
    "adam": lambda p, lr=1e-3: torch.optim.Adam(p, lr, amsgrad=True),
    "adamw": lambda p, lr=1e-3: torch.optim.AdamW(p, lr),
    "sgd": lambda p, lr=1e-2: torch.optim.SGD(p, lr, momentum=0.9),
}


def trained(model: nn.Module, x, optimiser, steps: int = 3):
    """The optimiser after a few steps."""
    for _ in range(steps):
        optimiser.zero_grad()
        model(x).square().mean().backward()
        optimiser.step()
    return optimiser


def loaded(model: nn.Module, state, make):
    optimiser = make(model.parameters())
    optimiser.load_state_dict(state)
    return optimiser


def half(structure) -> Plan:
    """Every second unit of every group."""
    return Plan({group.name: tuple(range(0, group.width, 2)) for group in structure})


def moments(optimiser, model) -> dict[str, dict[str, torch.Tensor]]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: {key: v for key, v in held.items() if isinstance(v, torch.Tensor) and v.shape == p.shape}
        for p, held in optimiser.state.items()
    }


@pytest.mark.parametrize("kind", ["adam", "sgd"])
@pytest.mark.parametrize("name", sorted(set(ZOO) - {"parametrised"}))
def test_moments_are_cut_as_the_weights_are(name, kind):
    """A model whose weights are the moments, cut by `cut`, is the naive twin."""
    model, x = built(name)
    optimiser = trained(model, x, OPTIMISERS[kind](model.parameters()))
    structure = trace(model, x)
    plan = half(structure)
    small = cut(model, structure, plan)
    before = copy.deepcopy(optimiser.state_dict())
    after = loaded(small, carry(optimiser.state_dict(), model, small, structure, plan), OPTIMISERS[kind])
    old, new = moments(optimiser, model), moments(after, small)
    for key in next(iter(old.values())):
        twin = copy.deepcopy(model)
        for parameter, p in twin.named_parameters():
            p.data = old[parameter][key].clone()
        twin = cut(twin, structure, plan)
        for parameter, p in twin.named_parameters():
            assert torch.equal(new[parameter][key], p), (parameter, key)
    again = optimiser.state_dict()
    assert before["param_groups"] == again["param_groups"]
    for number, held in before["state"].items():
        for key, value in held.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(again["state"][number][key]))
    trained(small, x, after)


@pytest.mark.parametrize("policy", ["mean_v", "pad_zero", "reset"])
@pytest.mark.parametrize("name", ZOO)
def test_moments_of_a_grown_model(name, policy):
    """Cutting the new units away again gives the old moments back; new entries are as the policy says."""
    model, x = built(name)
    optimiser = trained(model, x, OPTIMISERS["adam"](model.parameters()))
    structure = trace(model, x)
    counts = {group.name: 2 for group in structure if group.exact}
    large = insert(model, structure, counts)
    grown = grown_structure(structure, counts)
    state = carry(optimiser.state_dict(), model, large, structure, counts, policy)
    after = loaded(large, state, OPTIMISERS["adam"])
    if policy == "reset":
        larger = [p.shape != q.shape for p, q in zip(model.parameters(), large.parameters(), strict=True)]
        assert [not after.state[p] for p in large.parameters()] == larger
        return
    back = Plan({group.name: tuple(range(structure[group.name].width)) for group in grown})
    small = cut(large, grown, back)
    returned = carry(after.state_dict(), large, small, grown, back)
    grew = [p.shape != q.shape for p, q in zip(model.parameters(), large.parameters(), strict=True)]
    for number, held in optimiser.state_dict()["state"].items():
        if policy == "mean_v" and grew[number] and not held["exp_avg_sq"].any():
            assert number not in returned["state"]
            continue
        for key, value in held.items():
            assert torch.equal(returned["state"][number][key], value)
    for number, (p, q) in enumerate(zip(model.parameters(), large.parameters(), strict=True)):
        if number not in returned["state"]:
            continue
        old, new = optimiser.state[p], after.state[q]
        assert new["step"] == old["step"]
        if p.shape != q.shape:
            live = old["exp_avg_sq"][old["exp_avg_sq"] > 0].mean().item() if policy == "mean_v" else 0.0
            total = old["exp_avg_sq"].sum() + (q.numel() - p.numel()) * live
            torch.testing.assert_close(new["exp_avg_sq"].sum(), total)
            torch.testing.assert_close(new["exp_avg"].sum(), old["exp_avg"].sum(), atol=1e-12, rtol=1e-9)
    trained(large, x, after)


def test_moments_of_a_computed_weight():
    model, x = built("parametrised")
    optimiser = trained(model, x, OPTIMISERS["adamw"](model.parameters()))
    structure = trace(model, x)
    plan = Plan({"a": (0, 2), "b": (1, 3, 4)})
    small = cut(model, structure, plan)
    after = loaded(small, carry(optimiser.state_dict(), model, small, structure, plan), OPTIMISERS["adamw"])
    old, new = moments(optimiser, model), moments(after, small)
    for leaf, expected in (("0", [(1, 3, 4)]), ("1", [(1, 3, 4), (0, 2)])):
        name = f"b.parametrizations.weight.original{leaf}"
        value = old[name]["exp_avg"]
        for axis, units in enumerate(expected):
            value = value.index_select(axis, torch.tensor(units))
        assert torch.equal(new[name]["exp_avg"], value)


def test_moments_of_copies_keep_those_of_the_originals():
    model = mlp()
    x = batch(model).x
    optimiser = trained(model, x, OPTIMISERS["adam"](model.parameters()))
    structure = trace(model, x)
    copies = {"second": (1, 1)}
    wide = widen(model, structure, copies)
    state = carry(optimiser.state_dict(), model, wide, structure, copies)
    for p, held in zip(model.parameters(), state["state"].values(), strict=True):
        old = optimiser.state[p]["exp_avg_sq"]
        inside = tuple(slice(n) for n in p.shape)
        assert torch.equal(held["exp_avg_sq"][inside], old)
    squares = optimiser.state[model.second.weight]["exp_avg_sq"]
    assert state["state"][2]["exp_avg_sq"][5:].unique().item() == pytest.approx(squares[squares > 0].mean().item())


def test_zeros_make_the_first_steps_too_long_and_the_mean_does_not():
    """methods-growth 1.2: a steady gradient after long training, Adam (0.9, 0.999)."""
    lengths = {}
    for policy in ("pad_zero", "mean_v", "reset"):
        model = Net(lambda m, x: m.b(m.a(x)), a=nn.Linear(1, 2), b=nn.Linear(2, 1)).double()
        structure = trace(model, torch.zeros(1, 1, dtype=torch.float64))
        old = torch.optim.Adam(model.parameters(), lr=1.0, eps=0)
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        old.step()
        for held in old.state.values():
            held["step"].fill_(1e6)
            held["exp_avg"].fill_(1.0)
            held["exp_avg_sq"].fill_(1.0)
        large = insert(model, structure, {"a": 1})
        new = torch.optim.Adam(large.parameters(), lr=1.0, eps=0)
        new.load_state_dict(carry(old.state_dict(), model, large, structure, {"a": 1}, policy))
        track = [large.a.weight[:, 0].detach().clone()]
        for _ in range(100):
            for p in large.parameters():
                p.grad = torch.ones_like(p)
            new.step()
            track.append(large.a.weight[:, 0].detach().clone())
        steps = torch.stack([a - b for a, b in pairwise(track)])
        torch.testing.assert_close(steps[:, :2], torch.ones(100, 2).double())
        lengths[policy] = steps[:, 2]
    padded = lengths["pad_zero"]
    assert padded[0].item() == pytest.approx(3.16, abs=0.005)
    assert padded.argmax().item() == 11
    assert padded.max().item() == pytest.approx(6.57, abs=0.005)
    assert padded[99].item() == pytest.approx(3.2, abs=0.05)
    assert lengths["mean_v"][0].item() == pytest.approx(0.1)
    assert lengths["mean_v"].max().item() <= 1.0
    torch.testing.assert_close(lengths["reset"], torch.ones(100).double())


STEADY = {
    "adam": lambda p: torch.optim.Adam(p, 1e-3),
    "amsgrad": lambda p: torch.optim.Adam(p, 1e-3, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=0.0),
    "nadam": lambda p: torch.optim.NAdam(p, 1e-3),
}


def longest_step(model: nn.Module, optimiser, gradients, steps: int) -> float:
    """Of all entries and steps, in learning rates."""
    longest = 0.0
    for _ in range(steps):
        before = [p.detach().clone() for p in model.parameters()]
        for p, gradient in zip(model.parameters(), gradients, strict=True):
            p.grad = gradient.clone()
        optimiser.step()
        moves = [(p.detach() - old).abs().max().item() for p, old in zip(model.parameters(), before, strict=True)]
        longest = max(longest, *moves)
    return longest / optimiser.param_groups[0]["lr"]


@pytest.mark.parametrize("age", [1, 300])
@pytest.mark.parametrize("dead", [0, 6, 7, 8])
@pytest.mark.parametrize("kind", STEADY)
def test_no_step_after_growth_is_longer_than_one_and_a_half_learning_rates(kind, dead, age):
    """Steady gradients of one size, before growth only in the units that live; 8 of 8 dead is a layer that slept."""
    model = Net(lambda m, x: m.b(m.a(x)), a=nn.Linear(3, 8), b=nn.Linear(8, 2)).double()
    structure = trace(model, torch.zeros(1, 3, dtype=torch.float64))
    gradients = [torch.full_like(p, 0.02) for p in model.parameters()]
    gradients[0][:dead] = gradients[1][:dead] = 0.0
    gradients[2][:, :dead] = 0.0
    optimiser = STEADY[kind](model.parameters())
    longest_step(model, optimiser, gradients, age)
    large = insert(model, structure, {"a": 2})
    state = carry(optimiser.state_dict(), model, large, structure, {"a": 2})
    after = [torch.full_like(p, 0.02) for p in large.parameters()]
    asleep = dead if dead < 8 else 0
    after[0][:asleep] = after[1][:asleep] = 0.0
    after[2][:, :asleep] = 0.0
    assert longest_step(large, loaded(large, state, STEADY[kind]), after, 100) <= 1.5


@pytest.mark.parametrize("name", ["lstm", "gru", "cnn"])
def test_no_step_after_the_growth_of_a_network_is_too_long_either(name):
    model, x = built(name)
    structure = trace(model, x)
    counts = {group.name: 2 for group in structure if group.exact}
    optimiser = STEADY["adam"](model.parameters())
    longest_step(model, optimiser, [torch.full_like(p, 0.02) for p in model.parameters()], 100)
    large = insert(model, structure, counts)
    state = carry(optimiser.state_dict(), model, large, structure, counts)
    after = loaded(large, state, STEADY["adam"])
    assert longest_step(large, after, [torch.full_like(p, 0.02) for p in large.parameters()], 100) <= 1.5


def nets(kind: str):
    if kind == "mlp":
        net = Net(
            lambda m, x: m.c(torch.relu(m.b(torch.relu(m.a(x))))),
            a=nn.Linear(4, 24), b=nn.Linear(24, 24), c=nn.Linear(24, 1),
        )  # fmt: skip
        return net, (256, 4)
    if kind == "lstm":
        net = Net(lambda m, x: m.last(m.rnn(x)[0][:, -1]), rnn=nn.LSTM(1, 12, batch_first=True), last=nn.Linear(12, 1))
        return net, (256, 6, 1)
    net = Net(
        lambda m, x: m.last(F.relu(m.norm(m.b(F.relu(m.a(x))))).flatten(1)),
        a=nn.Conv2d(1, 6, 3), b=nn.Conv2d(6, 6, 3), norm=nn.BatchNorm2d(6), last=nn.Linear(24, 1),
    )  # fmt: skip
    return net, (256, 1, 6, 6)


def descent(model, x, y, optimiser, steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = F.mse_loss(model(x), y)
        losses.append(loss.item())
        loss.backward()
        optimiser.step()
    return losses


@pytest.mark.parametrize(
    ("kind", "optimiser", "seed"),
    [
        pytest.param(*case, marks=() if case[1:] == ("adam", 0) else pytest.mark.slow)
        for case in itertools.product(["mlp", "lstm", "cnn"], OPTIMISERS, range(3))
    ],
)
def test_training_goes_on_after_a_cut(kind, optimiser, seed):
    """Issue B, done when 5: the loss falls, and no step of the first 20 is more than twice a fresh optimiser's."""
    make = OPTIMISERS[optimiser]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, shape = nets(kind)
        x = torch.randn(shape)
    flat = x.flatten(1)
    y = (torch.sin(2 * flat[:, :1]) + flat[:, 1:2] * flat[:, 2:3]) / 1.5
    old = make(model.parameters())
    descent(model, x, y, old, 150)
    structure = trace(model, x[:2])
    plan = half(structure)
    small = cut(model, structure, plan)
    fresh = copy.deepcopy(small)
    carried = descent(small, x, y, loaded(small, carry(old.state_dict(), model, small, structure, plan), make), 21)
    anew = descent(fresh, x, y, make(fresh.parameters()), 21)
    assert carried[0] == anew[0]
    assert carried[20] < carried[0]
    assert all(ours <= 2 * theirs for ours, theirs in zip(carried, anew, strict=True))


def test_a_fit_goes_on_after_a_cut_and_after_growth():
    model = forecaster(dense=(4,)).float()
    data = batch(model, samples=40, dtype=torch.float32)
    split = SimpleNamespace(train=data, validation=Batch(data.x[:8], data.y[:8]))
    first = fit(model, split, TrainConfig(epochs=5, lr=1e-3))
    structure = trace(first.model, data.x[:1])
    counts = {group.name: 2 for group in structure}
    for change, new in (
        (half(structure), cut(first.model, structure, half(structure))),
        (counts, insert(first.model, structure, counts)),
    ):
        state = carry(first.optimiser_state, first.model, new, structure, change)
        resumed = dataclasses.replace(first, model=new, optimiser_state=state)
        second = fit(new, split, TrainConfig(epochs=3, lr=1e-3), resume=resumed)
        assert second.curves["train"][-1] < second.curves["train"][0]
        steps = {held["step"].item() for held in second.optimiser_state["state"].values()}
        assert steps == {first.optimiser_state["state"][0]["step"].item() + 3}
        assert [p.shape for p in second.model.parameters()] == [p.shape for p in new.parameters()]


def test_learning_rate_schedulers_go_on():
    model = mlp()
    x = batch(model).x
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimiser, step_size=3, gamma=0.1)
    expected, rates = [], []
    for _ in range(4):
        optimiser.step()
        scheduler.step()
    state, schedule = optimiser.state_dict(), scheduler.state_dict()
    for _ in range(6):
        optimiser.step()
        scheduler.step()
        expected.append(optimiser.param_groups[0]["lr"])
    structure = trace(model, x)
    small = cut(model, structure, half(structure))
    new = torch.optim.SGD(small.parameters(), lr=1.0, momentum=0.9)
    goes_on = torch.optim.lr_scheduler.StepLR(new, step_size=3, gamma=0.1)
    goes_on.load_state_dict(schedule)
    new.load_state_dict(carry(state, model, small, structure, half(structure)))
    for _ in range(6):
        new.step()
        goes_on.step()
        rates.append(new.param_groups[0]["lr"])
    assert rates == expected


def test_parameter_groups_keep_their_settings_and_order():
    model = forecaster()
    x = batch(model).x
    ends = [(name, p) for name, p in model.named_parameters() if name.startswith("head")]
    body = [(name, p) for name, p in model.named_parameters() if not name.startswith("head")]
    groups = [{"params": ends, "lr": 0.5}, {"params": body, "weight_decay": 0.1}]
    optimiser = trained(model, x, torch.optim.AdamW(groups, lr=1e-3))
    structure = trace(model, x)
    plan = half(structure)
    small = cut(model, structure, plan)
    state = carry(optimiser.state_dict(), model, small, structure, plan)
    new = dict(small.named_parameters())
    after = torch.optim.AdamW(
        [{"params": [(name, new[name]) for name, _ in ends]}, {"params": [(name, new[name]) for name, _ in body]}]
    )
    after.load_state_dict(state)
    assert [(g["lr"], g["weight_decay"]) for g in after.param_groups] == [(0.5, 0.01), (1e-3, 0.1)]
    for p, held in after.state.items():
        assert held["exp_avg"].shape == p.shape
    trained(small, x, after)


def test_frozen_parameters_that_the_optimiser_never_saw():
    model = forecaster()
    x = batch(model).x
    model.recurrent[0].weight_hh_l0.requires_grad_(False)
    optimiser = trained(model, x, torch.optim.Adam(p for p in model.parameters() if p.requires_grad))
    structure = trace(model, x)
    small = cut(model, structure, half(structure))
    after = torch.optim.Adam(p for p in small.parameters() if p.requires_grad)
    after.load_state_dict(carry(optimiser.state_dict(), model, small, structure, half(structure)))
    assert all(held["exp_avg"].shape == p.shape for p, held in after.state.items())


@pytest.mark.parametrize("name", ["cnn", "attention", "shared"])
def test_averages_go_on(name):
    """The averaged network is cut, and widened, as a network of its own would be."""
    model, x = built(name)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=False)
    trained(model, x, torch.optim.Adam(model.parameters()))
    average.update_parameters(model)
    trained(model, x, torch.optim.Adam(model.parameters()))
    average.update_parameters(model)
    structure = trace(model, x)
    plan = half(structure)
    copies = {group.name: (0,) for group in structure}
    for change, edit in ((plan, cut), (copies, widen)):
        new = edit(model, structure, change)
        after = AveragedModel(new)
        after.load_state_dict(carry_tensors(average.state_dict(), model, new, structure, change))
        torch.testing.assert_close(after(x), edit(average.module, structure, change)(x), atol=1e-12, rtol=1e-12)
        assert after.n_averaged == average.n_averaged
    counts = {group.name: 2 for group in structure}
    new = insert(model, structure, counts)
    state = carry_tensors(average.module.state_dict(), model, new, structure, counts)
    after = copy.deepcopy(new)
    after.load_state_dict(state)
    torch.testing.assert_close(after(x), average.module(x), atol=1e-12, rtol=1e-12)


def test_masks_of_weights_go_on():
    model = mlp()
    x = batch(model).x
    masks = {name: p > 0 for name, p in model.named_parameters()}
    structure = trace(model, x)
    plan = half(structure)
    small = cut(model, structure, plan)
    carried = carry_tensors(masks, model, small, structure, plan)
    assert all(torch.equal(carried[name], p > 0) for name, p in small.named_parameters())
    large = insert(model, structure, {"first": 2})
    carried = carry_tensors(masks, model, large, structure, {"first": 2})
    assert all(
        m.dtype == torch.bool and m.shape == p.shape for m, p in zip(carried.values(), large.parameters(), strict=True)
    )
    assert torch.equal(carried["first.weight"][:4], masks["first.weight"])
    assert carried["first.weight"][4:].all()


def test_states_of_other_models_and_other_changes_are_refused():
    model, other = mlp(), forecaster()
    x = batch(model).x
    optimiser = trained(model, x, torch.optim.Adam(model.parameters()))
    structure = trace(model, x)
    plan = half(structure)
    small = cut(model, structure, plan)
    state = optimiser.state_dict()
    with pytest.raises(ValueError, match="unknown policy"):
        carry(state, model, small, structure, plan, "best")
    with pytest.raises(StructureError, match="after it, but the new model's is"):
        carry(state, model, mask(model, structure, plan), structure, plan)
    with pytest.raises(StructureError, match="this very network"):
        carry(state, other, small, structure, plan)
    strange = trained(other, batch(other).x, torch.optim.Adam(other.parameters()))
    with pytest.raises(ValueError, match="the optimiser holds 12 parameters, the model has 8"):
        carry(strange.state_dict(), model, small, structure, plan)
    turned = trained(model, x, torch.optim.Adam(list(model.parameters())[::-1]))
    with pytest.raises(ValueError, match="another order"):
        carry(turned.state_dict(), model, small, structure, plan)
