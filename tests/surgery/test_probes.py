"""The networks on which the peers were tried: pared cuts them exactly. `benchmarks/surgery_peers.py` runs the peers."""

import pytest
import torch
from torch import Tensor, nn

from networks import snapshot, unchanged
from pared.criteria import magnitude
from pared.selection import select
from pared.surgery import Plan, Structure, by_unit, cut, mask, trace
from pared.types import Batch
from zoo import PROBES, ResNet18, Tower, probe

LIMIT = {torch.float32: 1e-5, torch.float64: 1e-12}


LARGE = ("ResNet-18", "MobileNetV2")
SLOW_IF_LARGE = [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in PROBES]


def half(model: nn.Module, structure: Structure, inputs: tuple[Tensor, ...], keep: tuple[str, ...] = ()) -> Plan:
    """Half of every group, by magnitude."""
    scores = magnitude(model, Batch(inputs[0], inputs[0]), nn.functional.mse_loss)
    return select(by_unit(scores, structure), structure, 0.5, keep=keep)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", PROBES)
def test_probes_are_cut_exactly(name):
    cut_exactly(name, torch.float32)


@pytest.mark.parametrize("name", SLOW_IF_LARGE)
def test_probes_are_cut_exactly_in_double_precision(name):
    cut_exactly(name, torch.float64)


def cut_exactly(name: str, dtype: torch.dtype) -> None:
    model, inputs = probe(name)
    model, inputs = model.to(dtype), tuple(x.to(dtype) for x in inputs)
    before, random = snapshot(model), torch.get_rng_state()
    structure = trace(model, inputs)
    plan = half(model, structure, inputs, keep=tuple(group.name for group in structure if not group.exact))
    small, masked = cut(model, structure, plan), mask(model, structure, plan)
    unchanged(before, model)
    assert torch.equal(random, torch.get_rng_state())

    with torch.no_grad():
        got, expected, full = small(*inputs), masked(*inputs), model(*inputs)
    assert float((got - expected).abs().max() / expected.abs().max()) < LIMIT[dtype]
    assert float((full - expected).abs().max() / full.abs().max()) > 1e-3  # the mask does something
    assert parameters(small) < 0.65 * parameters(model)
    shapes = dict(small.named_parameters())
    for group in structure:
        left = len(plan.keep.get(group.name, range(group.width)))
        assert not group.exact or left == group.width - round(group.width / 2), group.name
        for s in group.slices:
            if s.role == "in" and s.parameter in shapes and "attn" not in s.parameter:  # heads and their widths share
                assert shapes[s.parameter].shape[s.axis] >= s.blocks * s.inner * left


def test_inexact_groups_of_a_transformer_are_cut_too_and_say_so():
    model, inputs = probe("TransformerEncoderLayer")
    structure = trace(model, inputs)
    assert {group.name: group.exact for group in structure} == {
        "embed": False, "layer.self_attn.heads": True, "layer.self_attn.keys": True, "layer.self_attn.values": True,
        "layer.linear1": True,
    }  # fmt: skip
    small = cut(model, structure, half(model, structure, inputs))
    assert small.layer.norm1.normalized_shape == (8,)
    assert small.layer.self_attn.num_heads == 2
    assert small(*inputs).isfinite().all()
    assert parameters(small) < 0.25 * parameters(model)


@pytest.mark.parametrize("name", SLOW_IF_LARGE)
def test_small_probes_train(name):
    model, inputs = probe(name)
    structure = trace(model, inputs)
    small = cut(model, structure, half(model, structure, inputs)).train()
    small(*inputs).pow(2).mean().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())


def test_downsampling_blocks_move_together():
    """In a ResNet whatever is added up is one group; each block's inner channels are one of their own."""
    model = ResNet18(width=4, classes=5).eval()
    structure = trace(model, torch.randn(2, 3, 32, 32))
    assert [group.width for group in structure] == [4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32]
    assert "layer2.0.downsample.0" in structure.explain()


@pytest.mark.parametrize("one", [False, True], ids=["modules", "one module"])
def test_a_tower_of_lstms(one):
    model = Tower(width=12, one=one).eval()
    x = torch.randn(2, 5, 1)
    structure = trace(model, x)
    assert [group.width for group in structure] == [12] * 4
    plan = half(model, structure, (x,))
    torch.testing.assert_close(cut(model, structure, plan)(x), mask(model, structure, plan)(x), atol=1e-6, rtol=1e-5)
