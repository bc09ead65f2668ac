"""Every weight-level criterion on an MLP, a CNN and an LSTM: the laws, and that zero weights come last."""

import inspect
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn.functional import mse_loss

from kinds import KINDS
from networks import batch, forecaster, mlp
from pared import criteria
from pared.criteria.belsley import variational_factor
from pared.signals import prunable
from pared.surgery import by_unit, trace
from pared.testing import check_criterion

NETWORKS = {"mlp": mlp, "lstm": partial(forecaster, "lstm", 0, (3, 2), (2,)), "cnn": KINDS["cnn"].build}
CRITERIA = {
    "belsley": partial(criteria.belsley, ridge=1e-2),
    "belsley of correlations": partial(criteria.belsley, reading="correlation"),
    "belsley of precisions": partial(criteria.belsley, reading="precision"),
    "belsley once": partial(criteria.belsley, recompute=False),
    "belsley variational": partial(criteria.belsley, posterior=partial(variational_factor, steps=1)),
    "belsley-obs": criteria.belsley_obs,
    "deviation": criteria.deviation,
    "gradient covariance": criteria.gradient_covariance,
    "gradient covariance on the way": partial(criteria.gradient_covariance, reading="variance", steps=4),
    "grasp": criteria.grasp,
    "group jeffreys": partial(criteria.group_jeffreys, steps=5),
    "horseshoe": partial(criteria.horseshoe, steps=5),
    "layer-wise obs": criteria.layer_obs,
    "movement": partial(criteria.movement, steps=5, density=0.5),
    "obc": criteria.obc,
    "obd": criteria.obd,
    "obd exact": partial(criteria.obd, diagonal="exact"),
    "obd fisher": partial(criteria.obd, diagonal="fisher"),
    "obd hutchinson": partial(criteria.obd, diagonal="hutchinson"),
    "obs": criteria.obs,
    "obs recursive": partial(criteria.obs, recursive=True),
    "random": partial(criteria.random, of="weights"),
    "snip": criteria.snip,
    "snr": partial(criteria.snr, posterior="laplace"),
    "snr of all": partial(criteria.snr, posterior="laplace", covariance="full"),
    "snr of snapshots": partial(criteria.snr, posterior="snapshots", steps=2),
    "snr variational": partial(criteria.snr, posterior="variational", steps=2),
    "synflow": criteria.synflow,
    "variational dropout": partial(criteria.variational_dropout, steps=5),
    "wanda": criteria.wanda,
    "woodfisher": criteria.woodfisher,
    "woodtaylor": partial(criteria.woodfisher, gradient=True, damping=1e-2),
}
NOISY = ("group jeffreys", "horseshoe", "variational dropout", "snr variational", "belsley variational")
BY_PLACE = ("obd hutchinson", "random", "belsley once", *NOISY)
"""What draws random numbers by a weight's place, or goes by its number: it does not follow a reordering of units."""
RANKS = ("belsley", "belsley of correlations", "belsley of precisions", "belsley-obs")
"""Weights of units that ReLU keeps silent tie exactly, and ties go by place: reordered in the LSTM alone."""
UNSIGNED = {
    "belsley": "does not look at weights' sizes",
    "belsley of correlations": "does not look at weights' sizes",
    "belsley of precisions": "does not look at weights' sizes",
    "belsley once": "does not look at weights' sizes",
    "belsley variational": "does not look at weights' sizes",
    "belsley-obs": "ranks within the collinear cluster only",
    "group jeffreys": "after five steps says little",
    "horseshoe": "after five steps says little",
    "snr variational": "trains on, and a weight of zero may grow",
    "snr of snapshots": "a weight that never moved has no spread",
    "gradient covariance on the way": "does not look at weights' sizes",
    "grasp": "scores of weights whose removal lengthens the gradient are negative",
    "movement": "scores of weights that move towards zero are negative",
    "random": "is random",
    "woodtaylor": "at a gradient, a zero weight may be worth moving",
}
FAST = (
    "deviation",
    "gradient covariance",
    "grasp",
    "layer-wise obs",
    "obc",
    "obd",
    "obs",
    "snip",
    "synflow",
    "wanda",
    "woodfisher",
)


def data_of(network, model):
    return KINDS[network].batch(6) if network == "cnn" else batch(model, 24)


def quietly(criterion):
    def call(*args):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*second derivatives are negative")
            scores = CRITERIA[criterion](*args)
        return one_last_rank(scores) if criterion in RANKS else scores

    return call


def one_last_rank(scores):
    """The last two that are left have equal shares, so that rounding alone says which of them goes first."""
    last = max(float(values.max()) for values in scores.values())
    return {name: values.clamp_max(last - 1) for name, values in scores.items()}


PAIRS = [
    pytest.param(c, n, marks=() if c in FAST and n == "mlp" else pytest.mark.slow) for c in CRITERIA for n in NETWORKS
]


@pytest.mark.parametrize(("criterion", "network"), PAIRS)
def test_the_laws_hold(criterion, network):
    model = NETWORKS[network]()
    data = data_of(network, model)
    informed = criterion not in BY_PLACE and (criterion not in RANKS or network == "lstm")
    check_criterion(quietly(criterion), model, data, mse_loss, informed=informed)
    assert set(quietly(criterion)(model, data, mse_loss)) <= set(prunable(model).shapes)


@pytest.mark.parametrize(("criterion", "network"), [p for p in PAIRS if p.values[0] not in UNSIGNED])
def test_weights_that_do_nothing_score_lowest(criterion, network):
    """A unit that nothing makes and nothing reads, its weights zero."""
    model = NETWORKS[network]()
    data = data_of(network, model)
    group = trace(model, data.x[:1])[{"mlp": "second", "lstm": "recurrent.0.l0", "cnn": "point"}[network]]
    tensors = dict(model.named_parameters())
    with torch.no_grad():
        for s in group.slices:
            tensors[s.parameter].index_fill_(s.axis, torch.tensor(s.indices(group.width, [1])), 0.0)
    values = by_unit(quietly(criterion)(model, data, mse_loss), trace(model, data.x[:1]))[group.name]
    assert int(values.argmin()) == 1
    assert values[1] < values.max()


def test_every_public_criterion_says_where_it_is_from_and_what_it_costs():
    for name in criteria.__all__:
        text = inspect.getdoc(getattr(criteria, name))
        assert "Scores:" in text, name
        assert "Cost:" in text, name
        assert "Source:" in text or name == "random", name


def test_every_public_criterion_is_held_to_the_laws():
    here = Path(__file__).parent
    files = [*here.glob("test_*criteria.py"), here.parent / "criteria" / "test_layers.py"]
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    assert [n for n in criteria.__all__ if f"criteria.{n}" not in text and f'"{n}"' not in text] == []
