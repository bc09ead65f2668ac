"""Devices, types and autocast follow the model; data stream; `prune` works on every kind of network."""

import ast
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, IterableDataset

import pared
from kinds import KINDS
from networks import snapshot, unchanged
from pared import criteria
from pared.data.batches import example, first_batch, suited, suited_batch
from pared.signals import tensor_of
from pared.surgery import trace
from pared.types import Batch

CRITERIA = {name: getattr(criteria, name) for name in ("ablation", "activation", "taylor")}


def cast(batch, dtype):
    x = (batch.x,) if isinstance(batch.x, Tensor) else batch.x
    parts = tuple(part.to(dtype) if part.is_floating_point() else part for part in x)
    return Batch(parts if len(parts) > 1 else parts[0], batch.y.to(dtype))


def called(model, x):
    return tensor_of(model(*((x,) if isinstance(x, Tensor) else x)))


def near(found, expected, part, floor=1e-6):
    """Scores agree to a part of the largest score of their group, or to the rounding of losses."""
    for name, values in expected.items():
        apart = (found[name].double() - values.double()).abs().max()
        assert float(apart) <= part * float(values.abs().max()) + floor, name


def runs_under_autocast(model, x):
    """Whether PyTorch itself runs the network in an autocast region; oneDNN's LSTM does not on every processor."""
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            called(model, x)
            called(model, example(x))
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("name", KINDS)
def test_prune_works_on_every_kind_of_network(name):
    model, data = KINDS[name].build(), KINDS[name].batch(24)
    before = snapshot(model)
    small = pared.prune(model, data)
    unchanged(before, model)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert called(small, data.x).isfinite().all()
    assert called(small, data.x).shape == called(model, data.x).shape


@pytest.mark.parametrize("name", KINDS)
def test_single_and_half_precision_agree_with_double(name):
    whole = {c: criterion(KINDS[name].build(), KINDS[name].batch(), mse_loss) for c, criterion in CRITERIA.items()}
    for dtype, part in ((torch.float32, 1e-3), (torch.bfloat16, 0.3)):
        model = KINDS[name].build().to(dtype)
        for c, criterion in CRITERIA.items():
            found = criterion(model, cast(KINDS[name].batch(), dtype), mse_loss)
            near(found, whole[c], part, floor=part / 20)
        small = pared.prune(model, KINDS[name].batch())
        assert {p.dtype for p in small.parameters()} == {dtype}
        assert called(small, suited(KINDS[name].batch().x, model)).isfinite().all()


@pytest.mark.parametrize("name", KINDS)
def test_autocast_regions_are_respected(name):
    model, data = KINDS[name].build().float(), cast(KINDS[name].batch(), torch.float32)
    if not runs_under_autocast(model, data.x):
        pytest.skip("PyTorch does not run this network under autocast here")
    for criterion in CRITERIA.values():
        whole = criterion(model, data, mse_loss)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = criterion(model, data, mse_loss)
            assert torch.is_autocast_enabled("cpu")
        near(found, whole, 0.2, floor=1e-2)
        assert any(not torch.equal(found[group], whole[group]) for group in whole), "autocast made no difference"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        small = pared.prune(model, data)
    assert {p.dtype for p in small.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["mlp", "gru", "transformer", "two inputs"])
def test_data_of_another_type_are_moved_to_the_models(name):
    model = KINDS[name].build()
    same, other = KINDS[name].batch(), cast(KINDS[name].batch(), torch.float32)
    for criterion in CRITERIA.values():
        near(criterion(model, other, mse_loss), criterion(model, same, mse_loss), 1e-4)
    assert pared.prune(model, other) is not model


class Elsewhere(nn.Module):
    """Parameters without values stand for a device that is not there."""

    def __init__(self, *devices):
        super().__init__()
        self.own = nn.ParameterList(nn.Parameter(torch.empty(2, device=device)) for device in devices)


def test_inputs_go_where_the_model_is_unless_it_is_in_several_places():
    x, y = torch.ones(3, 2, dtype=torch.float64), torch.ones(3, 1)
    indices = torch.arange(3)
    moved = suited_batch(Batch((x, indices), y), Elsewhere("meta"))
    assert [part.device.type for part in (*moved.x, moved.y)] == ["meta"] * 3
    assert [part.dtype for part in (*moved.x, moved.y)] == [torch.float32, torch.int64, torch.float32]
    assert suited(x, Elsewhere("meta", "cpu")).device.type == "cpu"
    assert suited(x, nn.Identity()) is x
    mixed = nn.Sequential(nn.Linear(2, 2).double(), nn.Linear(2, 2))
    assert suited(torch.ones(3, 2), mixed).dtype == torch.float32


@pytest.mark.slow
def test_nothing_names_a_device_of_its_own():
    """No call of .cuda(), and no device written as a text, but for the places that may."""
    for path in Path(pared.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr != "cuda", path
                if node.func.attr in ("to", "device"):
                    assert not any(isinstance(a, ast.Constant) and a.value == "cuda" for a in node.args), path


class Endless(IterableDataset):
    """More samples than fit into memory, counted as they are asked for."""

    def __init__(self):
        self.asked = 0

    def __iter__(self):
        while True:
            self.asked += 1
            generator = torch.Generator().manual_seed(self.asked)
            x = torch.randn(3, generator=generator)
            yield x, x[:2] ** 2


def test_prune_takes_no_more_of_a_stream_than_it_looks_at():
    data = Endless()
    model = KINDS["mlp"].build()
    small = pared.prune(model, DataLoader(data, batch_size=100))
    assert data.asked == 600  # six batches of a hundred hold the 512 samples that are scored
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert len(first_batch(DataLoader(Endless(), batch_size=7), 20).y) == 20


@pytest.mark.parametrize("name", ["packed", "two inputs"])
def test_loaders_of_several_inputs(name):
    data = KINDS[name].batch(10)
    parts = [(tuple(part[n : n + 4] for part in data.x), data.y[n : n + 4]) for n in (0, 4, 8)]
    joined = first_batch(parts, 9)
    assert all(torch.equal(a, b[:9]) for a, b in zip(joined.x, data.x, strict=True))
    assert torch.equal(joined.y, data.y[:9])
    model = KINDS[name].build()
    one, two = (pared.prune(model, given) for given in (parts, data))
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(p, q)
    assert [len(part) for part in example(data.x)] == [1, 1]
    assert trace(model, example(data.x)).units > 1
