"""The junk-neuron index and magnitude, against loops and against the paper's own table."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import mse_loss

import reference
from networks import batch, forecaster, mlp
from pared.criteria import junk, magnitude
from pared.models import Forecaster
from pared.surgery import StructureError
from pared.types import Batch

# Huang, Gu & Yang, Acta Phys. Sin. 71, 160501 (2022), as printed, in millionths: |w| of an output gate, row by row.
TABLE_3 = """
32129 144328 7293 3557 70465 11652 111420 48287 105727 39649 10162 119949 77100 126937 1947 89396
70867 13232 54503 73496 5734 64071 145835 83217 25553 33065 113584 28327 54085 177761 10123 46546
83647 46366 66226 44534 10054 77919 71001 18548 35294 71642 53888 28448 102273 96744 78535 114879
39123 113002 161581 113866 70651 85571 18360 15408 32978 18375 68342 59137 7010 70451 32602 99853
13762 55823 147481 55493 93444 27264 82384 58674 32903 33342 45937 35937 110378 4487 161653 41037
38079 89649 13102 21696 42833 109787 1024 67300 36916 134038 66291 146953 9803 81372 98701 42456
13865 1702 57869 72264 104456 29761 62669 75390 57150 102282 17876 12626 20022 100243 153076 118750
2042 6925 60008 130310 136406 56203 61606 28064 6926 99129 55122 117276 68460 14505 78184 78834
44205 171724 153162 138180 29189 25947 49391 12338 100584 28133 4946 17914 8463 14741 66944 134139
94619 56300 40223 96283 101520 145036 51991 75623 75216 61209 57986 66076 4787 19450 42341 11339
78909 5603 81490 125202 69081 101430 122451 27058 57647 16226 32750 50667 36795 110720 81767 2204
46159 5688 6237 4618 14815 5272 45980 37005 190933 65535 5131 15155 65812 99804 172294 219560
111226 27026 27497 74868 139154 84413 80342 38769 88824 47083 56548 2081 105490 49929 20529 46220
92772 39990 55938 128114 36386 13061 83943 51033 106374 7257 63049 91929 84821 20458 89496 35379
131586 38161 176303 41758 49173 96633 3300 45529 84262 50839 3322 63406 29601 45323 116047 24757
70289 53780 92472 33372 52087 110236 55639 124221 29371 61420 49040 43376 12261 41226 109564 61299
"""
MEANS_OF_TABLE_3 = "60205 54331 75087 72372 64091 65266 65459 50404 66666 54326 43998 56204 49428 67134 82113 72915"
GATES = {"lstm": ["i", "f", "g", "o"], "gru": ["r", "z", "n"], "rnn": ["h"]}


@given(
    st.sampled_from(["lstm", "gru", "rnn"]),
    st.sampled_from(["out", "in"]),
    st.booleans(),
    st.integers(0, 99),
    st.data(),
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
    with pytest.raises(ValueError, match=r"'recurrent\.0\.l0' has the gates r, z, n, not 'o'"):
        junk(forecaster("gru"), batch(forecaster()), mse_loss, gate="o")


def test_a_row_of_zeros_scores_zero_not_nan():
    model = forecaster()
    nn.init.zeros_(model.recurrent[0].weight_hh_l0)
    assert junk(model, batch(model), mse_loss, row_normalise=True)["recurrent.0.l0"].tolist() == [0.0] * 5


def corrected_table() -> np.ndarray:
    table = np.array([line.split() for line in TABLE_3.split("\n")[1:-1]], dtype=float) / 1e6
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
    np.testing.assert_allclose(found * 1e6, [float(mean) for mean in MEANS_OF_TABLE_3.split()], atol=2)
    assert (found.argsort() + 1).tolist() == [11, 13, 8, 10, 2, 12, 1, 5, 6, 7, 9, 14, 4, 16, 3, 15]
    assert found.min() == pytest.approx(0.043998, abs=1e-6)
    assert found.max() == pytest.approx(0.082113, abs=1e-6)


def test_the_papers_thresholds_belong_to_weights_that_are_not_normalised():
    table = 1.8406 * corrected_table()
    model = with_output_gate(table)
    x = torch.zeros(1, 2, 1, dtype=torch.float64)
    scores = junk(model, Batch(x, x[:, 0]), mse_loss)["recurrent.0.l0"]
    assert [int((scores < t).sum()) for t in (0.09, 0.10, 0.11)] == [1, 4, 6]


@pytest.mark.slow
def test_junk_of_untrained_layers():
    """Oracle 5: orthogonal (16, 64) draws have mean |w| 0.100 and column means that spread by 0.0164."""
    x = torch.zeros(1, 2, 1)
    blocks = [Forecaster(1, (16,), (), seed=seed).recurrent[0].weight_hh_l0[48:].detach() for seed in range(600)]
    means = torch.stack([block.abs().mean(dim=0) for block in blocks])
    first = junk(Forecaster(1, (16,), (), seed=0), Batch(x, x[:, 0]), mse_loss)["recurrent.0.l0"]
    torch.testing.assert_close(first, means[0])
    assert float(means.mean()) == pytest.approx(math.sqrt(2 / math.pi) / 8, abs=1e-3)
    assert float(means.std()) == pytest.approx(0.0164, abs=6e-4)
    assert float((means < 0.09).float().sum(dim=1).mean()) == pytest.approx(4.4, abs=0.35)


def test_magnitude_is_the_size_of_every_weight():
    model = mlp()
    scores = magnitude(model, batch(model), mse_loss)
    assert list(scores) == [name for name, _ in model.named_parameters()]
    for name, parameter in model.named_parameters():
        assert scores[name].flatten().tolist() == [abs(w) for w in parameter.flatten().tolist()]
        assert not scores[name].requires_grad
