"""Activation scores against states collected by a loop."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import reference
import reference_units as slow
from networks import batch, forecaster
from pared.criteria import activation


@pytest.mark.parametrize("statistic", ["mean", "std"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_activation_is_the_mean_over_readers(cell, statistic):
    model = forecaster(cell)
    data = batch(model)
    scores = activation(model, data, mse_loss, statistic=statistic)
    _, (first, second) = reference.forecast(model, data.x)
    hidden = second[:, -1] @ model.head[0].weight.detach().numpy().T + model.head[0].bias.detach().numpy()
    readers = {
        "recurrent.0.l0": [first[:, :-1].reshape(-1, 5), first.reshape(-1, 5)],
        "recurrent.1.l0": [second[:, :-1].reshape(-1, 3), second[:, -1]],
        "head.0": [hidden],
    }
    assert scores.keys() == readers.keys()
    for name, values in readers.items():
        each = [slow.activation(v, statistic) for v in values]
        np.testing.assert_allclose(scores[name].numpy(), np.mean(each, axis=0), rtol=1e-12)


def test_windows_of_one_step_have_no_recurrence_to_look_at():
    model = forecaster()
    data = batch(model)
    scores = activation(model, data._replace(x=data.x[:, :1]), mse_loss)
    assert all(values.isfinite().all() and values.min() > 0 for values in scores.values())


def test_units_that_nothing_reads_score_zero():
    class Gate(nn.Module):
        """The one unit of `gate` multiplies all of `a` by broadcasting: no weight reads it."""

        def __init__(self):
            super().__init__()
            self.a, self.gate, self.last = nn.Linear(2, 3), nn.Linear(2, 1), nn.Linear(3, 1)

        def forward(self, x):
            return self.last(self.a(x) * self.gate(x))

    scores = activation(Gate(), batch(forecaster())._replace(x=torch.ones(4, 2)), mse_loss)
    assert scores["gate"].tolist() == [0.0]
    assert scores["a"].min() > 0
