"""The junk-neuron index and magnitude, against loops and against the paper's own table."""

import math
import runpy
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import mse_loss

from pared.criteria import junk, magnitude
from pared.models import Forecaster
from pared.surgery import StructureError
from pared.types import Batch

from networks import batch, forecaster, mlp

TABLE = runpy.run_path(str(Path(__file__).with_name("table_3.py")))
GATES = {"lstm": ["i", "f", "g", "o"], "gru": ["r", "z", "n"], "rnn": ["h"]}


@given(
    st.sampled_from(["lstm", "gru", "rnn"]), st.sampled_from(["out", "in"]), st.booleans(), st.integers(0, 99), st.data()
)
@settings(max_examples=30, deadline=None)
def test_junk_is_the_double_loop(cell, direction, row_normalise, seed, data):
    model = forecaster(cell, seed)
    gate = data.draw(st.sampled_from([None, *GATES[cell]]))
    scores = junk(model, batch(model), mse_loss, gate=gate, direction=direction, row_normalise=row_normalise)
    assert list(scores) == ["recurrent.0.l0", "recurrent.1.l0"]
    at = GATES[cell].index(gate or GATES[cell][-1])
    for k, layer in enumerate(model.recurrent):
        expected = reference.junk(layer.weight_hh_l0, at, direction, row_normalise)
        assert scores[f"recurrent.{k}.l0"].tolist() == pytest.approx(expected, rel=1e-13)


def test_junk_refuses_what_it_cannot_score():
    with pytest.raises(StructureError, match="this network has none"):
        junk(mlp(), batch(mlp()), mse_loss)
    with pytest.raises(ValueError, match="'recurrent.0.l0' has the gates r, z, n, not 'o'"):
        junk(forecaster("gru"), batch(forecaster()), mse_loss, gate="o")


def test_a_row_of_zeros_scores_zero_not_nan():
    model = forecaster()
    nn.init.zeros_(model.recurrent[0].weight_hh_l0)
    assert junk(model, batch(model), mse_loss, row_normalise=True)["recurrent.0.l0"].tolist() == [0.0] * 5


def corrected_table() -> np.ndarray:
    table = np.array(TABLE["ROWS"])
    table[3, 12] = 0.000701  # printed 0.00701
    table[15, 3] += 0.00035
    return table


def with_output_gate(block: np.ndarray) -> Forecaster:
    model = Forecaster(1, (16, 4), (4,), seed=0).double()
    with torch.no_grad():
        model.recurrent[0].weight_hh_l0[48:] = torch.from_numpy(block)
    return model


def test_junk_on_the_papers_table():
    """Oracle 4: with its two misprints mended, the table's rows sum to 1 and its column means are the printed ones."""
    table = corrected_table()
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-5)
    model = with_output_gate(-3 * table)
    x = torch.zeros(1, 2, 1, dtype=torch.float64)
    found = junk(model, Batch(x, x[:, 0]), mse_loss, row_normalise=True)["recurrent.0.l0"].numpy()
    np.testing.assert_allclose(found, TABLE["MEANS"], atol=2e-6)
    assert (found.argsort() + 1).tolist() == [11, 13, 8, 10, 2, 12, 1, 5, 6, 7, 9, 14, 4, 16, 3, 15]
    assert found.min() == pytest.approx(0.043998, abs=1e-6)
    assert found.max() == pytest.approx(0.082113, abs=1e-6)


def test_the_papers_thresholds_belong_to_weights_that_are_not_normalised():
    table = 1.8406 * corrected_table()
    model = with_output_gate(table)
    x = torch.zeros(1, 2, 1, dtype=torch.float64)
    scores = junk(model, Batch(x, x[:, 0]), mse_loss)["recurrent.0.l0"]
    assert [int((scores < t).sum()) for t in (0.09, 0.10, 0.11)] == [1, 4, 6]


def test_junk_of_untrained_layers():
    """Oracle 5: 2,000 orthogonal (16, 64) draws have mean |w| 0.100 and column means that spread by 0.0164."""
    x = torch.zeros(1, 2, 1)
    blocks = [Forecaster(1, (16,), (), seed=seed).recurrent[0].weight_hh_l0[48:].detach() for seed in range(2000)]
    means = torch.stack([block.abs().mean(dim=0) for block in blocks])
    first = junk(Forecaster(1, (16,), (), seed=0), Batch(x, x[:, 0]), mse_loss)["recurrent.0.l0"]
    torch.testing.assert_close(first, means[0])
    assert float(means.mean()) == pytest.approx(math.sqrt(2 / math.pi) / 8, abs=1e-3)
    assert float(means.std()) == pytest.approx(0.0164, abs=4e-4)
    assert float((means < 0.09).float().sum(dim=1).mean()) == pytest.approx(4.4, abs=0.2)


def test_magnitude_is_the_size_of_every_weight():
    model = mlp()
    scores = magnitude(model, batch(model), mse_loss)
    assert list(scores) == [name for name, _ in model.named_parameters()]
    for name, parameter in model.named_parameters():
        assert scores[name].flatten().tolist() == [abs(float(w)) for w in parameter.flatten()]
        assert not scores[name].requires_grad
