import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from networks import snapshot, unchanged
from pared import Batch, TrainConfig, fit
from pared.models import ManyTask
from pared.successive import AnchoredLoss, fit_anchored
from problems import Data, drawn

CONFIG = TrainConfig(epochs=4, lr=1e-2, batch_size=16, seed=3)


def model(width=2):
    """Three classes, then two, of four features."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        low, high = nn.Linear(4, 5), nn.Linear(9 + width, 3)
        layers = {"low": nn.Sequential(low, nn.Tanh()), "high": nn.Sequential(high, nn.Tanh())}
        return ManyTask(layers, {"low": nn.Linear(5, 3), "high": nn.Linear(3, 2)}, width, seed=2)


def data(classes, samples=48):
    x = drawn(samples, 4)
    return Data(Batch(x, (x[:, 0] > 0).long() % classes), Batch(x[:0], x[:0, 0].long()))


def test_upper_tasks_hear_the_labels_of_lower_ones_weighed_by_their_probabilities():
    one, x = model(), drawn(6, 4)
    low = one.layers["low"](x)
    p = one.heads["low"](low).softmax(1)
    label = torch.stack([sum(p[i, j] * one.labels["low"][j] for j in range(3)) for i in range(6)])
    high = one.heads["high"](one.layers["high"](torch.cat([x, low, label], 1)))
    torch.testing.assert_close(one(x), high)
    torch.testing.assert_close(one(x, "low"), one.heads["low"](low))
    one(x).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in one.parameters())  # the lower task's head among them
    assert set(one.labels) == {"low"}


def test_recurrent_layers_of_ones_own():
    layers = {"a": nn.LSTM(1, 3, batch_first=True), "b": nn.GRU(1 + 3 + 2, 4, batch_first=True)}
    one = ManyTask(layers, {"a": nn.Linear(3, 5), "b": nn.Linear(4, 2)}, width=2)
    assert one(drawn(7, 6, 1)).shape == (7, 6, 2)
    assert one(drawn(7, 6, 1), "a").shape == (7, 6, 5)


def test_tasks_are_learnt_in_turn_near_what_lower_ones_left():
    start = model()
    before, state = snapshot(start), torch.get_rng_state()
    low = fit(start.at("low"), data(3), CONFIG, cross_entropy).model.whole
    free, held = (
        fit_anchored(low.at("high"), data(2), CONFIG, low.below("high"), AnchoredLoss(cross_entropy, delta)).model.whole
        for delta in (0.0, 100.0)
    )
    unchanged(before, start)
    assert torch.equal(state, torch.get_rng_state())
    lower = [name for name in low.state_dict() if "low" in name]
    assert len(lower) == 5
    apart = [sum((each.state_dict()[n] - low.state_dict()[n]).square().sum() for n in lower) for each in (free, held)]
    assert apart[0] > 10 * apart[1] > 0
    assert not torch.equal(held.layers["high"][0].weight, low.layers["high"][0].weight)
    assert low.below("low") == []


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="same tasks in order"):
        ManyTask({"a": nn.Linear(1, 1)}, {"b": nn.Linear(1, 2)})
    for wrong in (lambda: model().at("middle"), lambda: model()(drawn(2, 4), "middle")):
        with pytest.raises(ValueError, match="no task 'middle'; there are low, high"):
            wrong()
