"""Counts of weights: what is there, what is not zero, what a file really takes."""

import pytest
import torch
from torch import nn

import pared
from networks import snapshot, unchanged


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 1))


def test_counts_are_those_of_loops_and_files(tmp_path):
    model = network()
    masks = {"0.weight": torch.rand(30, 20, generator=torch.Generator().manual_seed(0)) < 0.1}
    masked = pared.mask_weights(model, masks)
    with torch.no_grad():
        masked[2].weight[0, 0] = -0.0
    x = torch.randn(4, 20)
    before = snapshot(masked)
    table = pared.compare_weights(model, masked, x, repeats=2)
    unchanged(before, masked)
    found = table.after
    entries = [v for p in masked.parameters() for v in p.flatten().tolist()]
    assert (found.parameters, found.nonzero) == (len(entries), sum(v != 0 for v in entries))
    assert found.weights == {"0.weight": (600, int(masks["0.weight"].sum())), "2.weight": (30, 29)}
    assert found.density == pytest.approx(found.nonzero / found.parameters)
    pared.save(tmp_path / "sparse", masked, pared.Plan({}))
    assert found.bytes == (tmp_path / "sparse" / "model.safetensors").stat().st_size
    pared.save(tmp_path / "dense", model, pared.Plan({}))
    assert found.dense_bytes == table.before.dense_bytes == (tmp_path / "dense" / "model.safetensors").stat().st_size
    assert found.bytes < 0.5 * found.dense_bytes
    assert found.milliseconds > 0


def test_the_table_says_what_is_gone():
    model = network()
    small = pared.low_rank(model, rank={"0": 2}).model
    text = str(pared.compare_weights(model, small, torch.randn(4, 20), repeats=1))
    assert "0.weight" in text
    assert "0.0.weight" in text
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert next(line for line in lines if line.startswith("0.0.weight")).split()[1:] == [
        "-",
        "-",
        "-",
        "40",
        "40",
        "100.0%",
    ]
