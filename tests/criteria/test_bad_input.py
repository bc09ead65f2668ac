"""What users may hand over by mistake: every case is refused or warned of by name, or makes no difference."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, l1_loss, mse_loss

import pared
from deep_networks import data as deep_data
from deep_networks import deep
from networks import batch, mlp
from pared import Steps, criteria
from pared.schedules import OneShot
from pared.signals import CurvatureError
from pared.surgery import StructureError
from pared.testing import check_criterion
from pared.types import Batch

SECOND_ORDER = [
    "belsley", "belsley_obs", "grasp", "group_obs", "obd", "obs", "snr",
]  # fmt: skip
DENSE = ["belsley", "belsley_obs", "group_obs", "obs"]
UNITS = [
    "ablation", "activation", "determinantal", "entropy", "greedy", "group_obs", "least_squares", "norm",
    "predicted_ablation", "reranked", "sample_diverse", "similarity", "taylor",
]  # fmt: skip
QUICK = ("activation", "least_squares", "similarity", "taylor")


def split_of(data):
    class Parts:
        train, validation = data, Batch(data.x[:0], data.y[:0])

    return Parts()


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in ("grasp", "group_obs") else pytest.mark.slow) for n in SECOND_ORDER]
)
def test_a_loss_without_second_derivative_is_named(name):
    model = mlp()
    with pytest.raises(CurvatureError, match=r"no second derivative .* use mse_loss or cross_entropy"):
        getattr(criteria, name)(model, batch(model), l1_loss)
    with pytest.raises(CurvatureError, match="cannot be differentiated twice"):
        getattr(criteria, name)(model, batch(model), lambda out, y: torch.cdist(out, y).mean())


@pytest.mark.parametrize("name", DENSE)
def test_a_network_too_large_for_a_dense_matrix_is_told_its_size_and_what_to_use(name):
    model = nn.Sequential(nn.Linear(300, 100), nn.Tanh(), nn.Linear(100, 1))
    data = Batch(torch.randn(4, 300), torch.randn(4, 1))
    words = r"30,100 weights needs 20\.3 GiB \(three 30,100 x 30,100 matrices in float64\), the limit is 4\.0 GiB; use "
    instead = "least_squares" if name == "group_obs" else "obc or sparse_gpt"
    with pytest.raises(CurvatureError, match=words + instead):
        getattr(criteria, name)(model, data, mse_loss)
    with pytest.raises(CurvatureError, match=words + "covariance='diagonal'"):
        criteria.snr(model, data, mse_loss, covariance="full")


def test_singular_and_indefinite_matrices_are_named():
    model = mlp()
    for criterion in (criteria.obs, criteria.group_obs):
        with pytest.raises(CurvatureError, match=r"is singular: .* give more damping"):
            criterion(model, batch(model), mse_loss, damping=0.0)
        with pytest.raises(CurvatureError, match=r"is indefinite: .* or use the GGN or the Fisher matrix"):
            criterion(model, batch(model), mse_loss, matrix="hessian")
    with pytest.raises(CurvatureError, match=r"is singular: .* give more damping"):
        criteria.layer_obs(model, batch(model, 2), mse_loss, damping=0.0)
    with pytest.raises(CurvatureError, match="infinities or NaN"):
        criteria.obs(model, batch(model), lambda out, y: mse_loss(out, y) * torch.nan)


WRONG = [
    (lambda *_: {}, "scores nothing"),
    (lambda *_: {"nowhere": torch.ones(4)}, "nowhere"),
    (lambda *_: {"second.weight": torch.ones(4, 7)}, r"shaped \(4, 7\)"),
    (lambda *_: {"second.weight": torch.full((5, 4), torch.nan)}, "hold NaN"),
    (lambda *_: {"first": torch.ones(3)}, r"shaped \(3,\)|'first'"),
    (lambda *_: {"first": torch.full((4,), torch.nan)}, "hold NaN|'first'"),
]


@pytest.mark.parametrize(("criterion", "words"), WRONG)
def test_a_criterion_that_returns_wrong_names_shapes_or_nan_is_refused(criterion, words):
    """By all that takes one: `prune`, `reranked`, `gradual`; and `check_criterion` says which law it breaks."""
    model = mlp()
    data = batch(model)
    with pytest.raises(ValueError, match=words):
        pared.prune(model, data, criterion=criterion)
    with pytest.raises(ValueError, match=words):
        criteria.reranked(model, data, mse_loss, criterion=criterion)
    with pytest.raises(ValueError, match=words):
        pared.gradual(model, split_of(data), criterion, Steps(OneShot(0.5), 1))
    with pytest.raises(AssertionError, match="law 2"):
        check_criterion(criterion, model, data, mse_loss)


def test_too_few_data_for_the_repair_are_told():
    model = mlp()
    structure = pared.trace(model, batch(model).x)
    plan = pared.Plan({"first": (0, 1), "second": (0, 1, 4)})
    with pytest.warns(
        UserWarning, match=r"too few data for .* 'second.weight' and 2 other weights: it reads 4 values, and .* 2 rows"
    ):
        repaired = pared.compensate(model, structure, plan, batch(model, 2).x)
    assert all(p.isfinite().all() for p in repaired.parameters())
    with pytest.warns(UserWarning, match="too few data"):
        criteria.least_squares(model, batch(model, 3), mse_loss)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pared.compensate(model, structure, plan, batch(model, 5).x)


def twins(kind):
    """A network two units of which are the same, or one of which never changes; and data."""
    model = mlp()
    with torch.no_grad():
        if kind == "duplicated":
            model.first.weight[2], model.first.bias[2] = model.first.weight[0], model.first.bias[0]
        else:
            model.first.weight[2] = 0.0
    return model, batch(model, 30)


@pytest.mark.parametrize("kind", ["constant", "duplicated"])
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in UNITS])
def test_constant_and_duplicated_units_are_scored_and_repaired(name, kind):
    model, data = twins(kind)
    scores = getattr(criteria, name)(model, data, mse_loss)
    assert all(values.isfinite().all() for values in scores.values())
    small = pared.prune(model, data, criterion=getattr(criteria, name))
    assert small(data.x).isfinite().all()


@pytest.mark.slow
def test_layers_that_give_nothing_or_a_constant_are_scored():
    """A dead layer is all the same for every measure."""
    model = deep()
    with torch.no_grad():
        model[2].weight.zero_()
    for name in (
        "cka",
        "layer_ablation",
        "learned_gate",
        "probe_gain",
        "recovery",
        "reinitialisation",
        "replaceability",
    ):
        scores = getattr(criteria, name)(model, deep_data("deep"), mse_loss)
        assert all(value.isfinite() for value in scores.values()), name


def test_one_class_and_one_sample_are_enough_or_refused_by_name():
    model, data = deep(), deep_data("deep")
    one_class = data._replace(y=torch.zeros(len(data.x), dtype=torch.long))
    with pytest.raises(ValueError, match="class"):
        criteria.probe_gain(model, one_class, cross_entropy)
    with pytest.raises(ValueError, match="at least 4 rows, got 1"):
        criteria.cka(model, Batch(data.x[:1], data.y[:1]), mse_loss)
    with pytest.raises(StructureError, match="no layer that can be dropped gives as many values"):
        criteria.block_influence(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double(), data, mse_loss)
