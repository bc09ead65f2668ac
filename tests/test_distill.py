"""Teacher and student: the losses against their formulas, and what training by them must and must not change."""

import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from networks import snapshot, unchanged
from pared import MLP, Batch, Forecaster, TrainConfig, fit
from pared.distill import adapt, answers, born_again, distill, hint
from pared.targets import Bounded, Mixed, Soft, temperature_loss
from problems import Data, drawn

CONFIG = TrainConfig(epochs=3, batch_size=16, seed=3)


def classes(count=48):
    x = drawn(count, 5)
    y = x[:, :3].argmax(dim=1)
    return Data(Batch(x, y), Batch(drawn(12, 5, seed=1), torch.arange(12) % 3))


def numbers(count=48):
    x = drawn(count, 5)
    return Data(Batch(x, x[:, :1].sin()), Batch(drawn(12, 5, seed=1), drawn(12, 1, seed=2)))


def equal(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(2, 7), st.floats(0.5, 30), st.integers(0, 99))
def test_the_temperature_loss_is_the_formula(rows, count, temperature, seed):
    out, taught = drawn(rows, count, seed=seed).double(), drawn(rows, count, seed=seed + 1).double()
    out.requires_grad_()
    p, q = (torch.softmax(logits / temperature, dim=1) for logits in (taught, out))
    naive = temperature**2 * sum(p[i, c] * (p[i, c] / q[i, c]).log() for i in range(rows) for c in range(count)) / rows
    loss = temperature_loss(out, taught, temperature)
    torch.testing.assert_close(loss, naive, rtol=1e-9, atol=1e-9)
    (gradient,) = torch.autograd.grad(loss, out)
    torch.testing.assert_close(gradient, temperature * (q - p) / rows, rtol=1e-9, atol=1e-10)


def test_at_a_high_temperature_the_gradient_is_that_of_matching_logits_whatever_the_temperature():
    out, taught = (
        logits - logits.mean(dim=1, keepdim=True) for logits in (drawn(4, 10).double(), drawn(4, 10, seed=1).double())
    )
    out.requires_grad_()
    for temperature in (1e3, 1e4):
        (gradient,) = torch.autograd.grad(temperature_loss(out, taught, temperature), out)
        torch.testing.assert_close(gradient, (out - taught).detach() / 40, rtol=0.01, atol=1e-4)


@pytest.mark.parametrize(("how", "data", "loss"), [
    (Soft(alpha=0.0), classes(), cross_entropy),
    (Mixed(alpha=0.0), numbers(), mse_loss),
    (Bounded(nu=0.0), numbers(), mse_loss),
])  # fmt: skip
def test_without_the_teachers_share_it_is_plain_training_bit_for_bit(how, data, loss):
    outputs = 3 if loss is cross_entropy else 1
    student, teacher = MLP(5, (4,), outputs, seed=1), MLP(5, (9,), outputs, seed=2)
    taught, plain = distill(student, teacher, data, CONFIG, how), fit(student, data, CONFIG, loss)
    assert equal(taught.model, plain.model)
    assert taught.curves == plain.curves


def test_with_the_teachers_share_alone_the_labels_are_not_read():
    student, teacher, data = MLP(5, (4,), 3, seed=1), MLP(5, (9,), 3, seed=2), classes()
    turned = Data(Batch(data.train.x, (data.train.y + 1) % 3), data.validation)
    how = Soft(alpha=1.0)
    assert equal(
        distill(student, teacher, data, CONFIG, how).model, distill(student, teacher, turned, CONFIG, how).model
    )


def test_mixed_targets_have_the_gradient_of_both_terms():
    out, y, taught = drawn(6, 2).requires_grad_(), drawn(6, 2, seed=1), drawn(6, 2, seed=2)
    how = Mixed(alpha=0.3)
    (own,) = torch.autograd.grad(how.loss(out, how.targets(taught, y)), out)
    (both,) = torch.autograd.grad(0.7 * mse_loss(out, y) + 0.3 * mse_loss(out, taught), out)
    torch.testing.assert_close(own, both)


def test_the_bound_counts_examples_on_which_the_student_does_not_beat_the_teacher():
    out, y, taught = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1), torch.tensor([[2.0], [1.0]])
    assert Bounded(nu=0.5).loss(out, Bounded().targets(taught, y)) == 5 + 0.5 * 9 / 2
    assert Bounded(nu=0.5, margin=3.5).loss(out, Bounded().targets(taught, y)) == 5 + 0.5 * 10 / 2


def test_nothing_that_is_passed_in_changes():
    student, teacher, data = MLP(5, (4,), 3, seed=1, dropout=0.5), MLP(5, (9,), 3, seed=2, dropout=0.5), classes()
    before, state = (snapshot(student), snapshot(teacher)), torch.get_rng_state().clone()
    distill(student, teacher, data, CONFIG, unlabelled=drawn(8, 5, seed=4))
    unchanged(before[0], student)
    unchanged(before[1], teacher)
    assert torch.equal(state, torch.get_rng_state())


def test_a_student_comes_near_its_teacher_on_unlabelled_inputs():
    teacher, data, more = MLP(5, (9,), 1, seed=2), numbers(16), drawn(400, 5, seed=5)
    config = TrainConfig(epochs=40, batch_size=32)
    found = distill(MLP(5, (9,), 1, seed=1), teacher, data, config, Mixed(alpha=1.0), unlabelled=more)
    apart = mse_loss(answers(found.model, data.validation.x), answers(teacher, data.validation.x))
    assert apart < 0.02 * answers(teacher, more).var()


def test_labels_of_minus_one_are_learnt_from_the_teacher_alone():
    teacher, data = MLP(5, (9,), 3, seed=2), classes()
    y = data.train.y.clone()
    y[16:] = -1
    split = Data(Batch(data.train.x, y), data.validation)
    apart = Data(Batch(data.train.x[:16], y[:16]), data.validation)
    found = distill(MLP(5, (4,), 3, seed=1), teacher, split, CONFIG)
    assert equal(
        found.model, distill(MLP(5, (4,), 3, seed=1), teacher, apart, CONFIG, unlabelled=data.train.x[16:]).model
    )


def test_several_teachers_are_averaged():
    teachers, x = [MLP(5, (4,), 3, seed=k) for k in range(3)], drawn(7, 5)
    with torch.no_grad():
        expected = sum(each(x) for each in teachers) / 3
    torch.testing.assert_close(answers(teachers, x), expected)


def test_a_module_of_ones_own_is_taught():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(1, 3, batch_first=True), nn.Linear(3, 1)

        def forward(self, x):
            return self.head(self.lstm(x)[0][:, -1])

    x = drawn(40, 6, 1)
    data = Data(Batch(x, x[:, -1]), Batch(x[:0], x[:0, -1]))
    teacher = Forecaster(1, (5,), (), seed=0)
    found = distill(Own(), teacher, data, CONFIG, Mixed(alpha=0.5))
    assert found.curves["train"][-1] < found.curves["train"][0]


def test_hints_bring_a_layer_near_the_teachers_and_leave_what_comes_after():
    student, teacher, data = MLP(5, (4, 6), 3, seed=1), MLP(5, (9, 9), 3, seed=2), classes()
    found = hint(student, teacher, ("layers.0", "layers.2"), data, TrainConfig(epochs=20))
    assert type(found.model) is MLP
    assert found.curves["validation"][-1] < 0.9 * found.curves["validation"][0]
    before, after = student.state_dict(), found.model.state_dict()
    assert not torch.equal(before["layers.0.weight"], after["layers.0.weight"])
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("layers.0"))
    distill(found.model, teacher, data, CONFIG)


def test_hints_of_recurrent_layers_and_of_convolutions():
    x = drawn(20, 6, 1)
    data = Data(Batch(x, x[:, -1]), Batch(x, x[:, -1]))
    found = hint(
        Forecaster(1, (3,), (), seed=1), Forecaster(1, (5,), (), seed=2), ("recurrent.0", "recurrent.0"), data, CONFIG
    )
    assert found.curves["train"][-1] < found.curves["train"][0]
    thin, wide = (nn.Sequential(nn.Conv2d(1, n, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)) for n in (2, 4))
    images = drawn(20, 1, 6, 6)
    thin(images), wide(images)
    data = Data(Batch(images, torch.arange(20) % 2), Batch(images[:0], torch.arange(0)))
    assert hint(thin, wide, ("0", "0"), data, CONFIG).model[0].weight.shape == (2, 1, 3, 3)


def test_generations_are_each_taught_by_the_one_before():
    def build(generation):
        return MLP(5, (4,), 3, seed=generation)

    data, how = classes(), Soft(1.0, 0.5)
    fits = born_again(build, data, CONFIG, how, generations=2)
    assert equal(fits[0].model, fit(build(0), data, CONFIG, cross_entropy).model)
    again = distill(build(2), fits[1].model, data, TrainConfig(epochs=3, batch_size=16, seed=5), how)
    assert equal(fits[2].model, again.model)


def test_parallel_data_teach_another_domain():
    teacher, source = MLP(5, (9,), 3, seed=2), drawn(300, 5)
    target = source.flip(1)
    found = adapt(teacher, source, target, TrainConfig(epochs=60, batch_size=32))
    agreed = (answers(found.model, target).argmax(1) == answers(teacher, source).argmax(1)).double().mean()
    assert agreed > 0.9 > (answers(teacher, target).argmax(1) == answers(teacher, source).argmax(1)).double().mean()


def refused(**changes):
    data = classes()
    given = {"student": MLP(5, (4,), 3, seed=1), "teacher": MLP(5, (9,), 3, seed=2), "split": data, "config": CONFIG}
    distill(**(given | changes))


def labelled(labels):
    return Data(Batch(drawn(len(labels), 5), torch.tensor(labels)), classes().validation)


def validated(y, data=None):
    """Data that may be trained on, with another truth to validate by."""
    return Data((data or classes()).train, Batch(drawn(len(y), 5, seed=1), torch.tensor(y)))


NETWORK = MLP(5, (4,), 1, seed=1)
MIXED = {"student": NETWORK, "teacher": MLP(5, (9,), 1, seed=2), "how": Mixed()}
NORMALISED = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


@pytest.mark.parametrize(("changes", "message"), [
    ({"teacher": MLP(5, (9,), 4, seed=2), "how": Soft(alpha=1.0)}, r"like outputs.*gives \(2, 4\).*\(2, 3\)"),
    ({"teacher": []}, "no teacher"),
    ({"split": labelled([0, 1, 3, 2])}, "label 3 is none of the 3 classes"),
    ({"split": labelled([0, 1, 1, 0])}, "no example is labelled as class 2"),
    ({"split": numbers()}, "labels must be whole numbers"),
    ({"split": numbers(), "how": Mixed()}, "shaped like the teacher's outputs"),
    ({"split": validated([0, 7])}, "label 7 is none of the 3 classes"),
    ({"split": validated([0, -1])}, "label -1 is none of the 3 classes"),
    ({"split": validated([0.0, 1.0])}, "labels must be whole numbers"),
    (MIXED | {"split": validated([[0.5], [math.nan]], numbers())}, "must be finite numbers"),
    (MIXED | {"split": validated([[0.5], [math.nan]], numbers()), "how": Bounded()}, "must be finite numbers"),
    (MIXED | {"split": validated([0.5, 0.1], numbers())}, r"shaped like the network's outputs.*\(2,\)"),
    ({"student": NORMALISED, "config": TrainConfig(epochs=1, batch_size=47)}, "batch of one"),
    ({"student": NORMALISED, "config": TrainConfig(epochs=1, batch_size=1)}, "batch of one"),
])  # fmt: skip
def test_what_cannot_be_taught_is_refused(changes, message, monkeypatch):
    monkeypatch.setattr(sys.modules["pared.distill"], "fit", None)  # nothing is trained before
    with pytest.raises(ValueError, match=message):
        refused(**changes)


def test_what_is_no_network_neither_teaches_nor_learns():
    network, data = MLP(5, (4,), 3, seed=1), classes()
    found = fit(network, data, CONFIG, cross_entropy)
    for student, teacher in ((network, found), (network, [network, found]), (found, network)):
        with pytest.raises(TypeError, match=r"got a Fit; of a Fit give its \.model"):
            distill(student, teacher, data, CONFIG)


@pytest.mark.parametrize("label", [-1, 9])
def test_generations_need_labels_that_are_classes(label, monkeypatch):
    monkeypatch.setattr(sys.modules["pared.distill"], "fit", None)
    with pytest.raises(ValueError, match=f"label {label} is none of the 3 classes"):
        born_again(lambda seed: MLP(5, (4,), 3, seed=seed), labelled([0, 1, 2, label]), CONFIG)
    with pytest.raises(ValueError, match="Mixed for numbers"):
        born_again(lambda seed: MLP(5, (4,), 1, seed=seed), numbers(), CONFIG)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_labels_keep_their_value_beside_logits_of_half_precision(dtype):
    labels, taught = torch.tensor([257, 511, 599, 2049]), drawn(4, 3000).to(dtype)
    targets = Soft(alpha=1.0).targets(taught, labels)
    assert torch.equal(targets[:, 0].long(), labels)
    assert torch.equal(targets[:, 1:].to(dtype), taught)
    assert torch.equal(Soft().truth(labels, taught)[:, 0].long(), labels)


def test_networks_of_half_precision_teach_and_learn():
    dtype = torch.bfloat16
    data = Data(*(Batch(x.to(dtype), y) for x, y in (classes().train, classes().validation)))
    student, teacher = (MLP(5, (width,), 3, seed=width).to(dtype) for width in (4, 9))
    found = distill(student, teacher, data, CONFIG)
    assert {p.dtype for p in found.model.parameters()} == {dtype}
    assert found.curves["train"][-1] < found.curves["train"][0]


def test_ways_hints_and_pairs_that_cannot_be_are_refused():
    for wrong in (lambda: Soft(0.0), lambda: Soft(alpha=1.1), lambda: Mixed(-0.1), lambda: Bounded(nu=-1.0)):
        with pytest.raises(ValueError, match=r"must be|from 0 to 1"):
            wrong()
    student, teacher, data = MLP(5, (4,), 3, seed=1), MLP(5, (9,), 3, seed=2), classes()
    with pytest.raises(ValueError, match=r"no module 'layers\.9'"):
        hint(student, teacher, ("layers.9", "layers.0"), data, CONFIG)
    with pytest.raises(ValueError, match="pairs"):
        adapt(teacher, data.train.x, data.train.x[1:], CONFIG)
    with pytest.raises(ValueError, match="truth of every example"):
        distill(MLP(5, (4,), 1, seed=1), MLP(5, (9,), 1, seed=2), numbers(), CONFIG, Bounded(), unlabelled=drawn(3, 5))
    with pytest.raises(ValueError, match="generation"):
        born_again(lambda _: student, data, CONFIG, generations=0)
