"""Units, weights and layers taken out for a study: what goes, the random and the fresh twin, what is refused."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from networks import batch, forecaster, snapshot, unchanged
from pared import criteria, evaluation, store
from pared.cutting import Layers, Subject, Units, Weights, same_counts
from pared.masks import mask_weights
from pared.models import MLP, Forecaster
from pared.outcomes import Removal, Trained, units_left
from pared.selection import Budget, Count, Ratio, Ratios, Threshold
from pared.settings import RunConfig, TableConfig
from pared.sizes import Pool
from pared.surgery import Plan, StructureError, load, load_masks, replay, trace
from pared.training import Fit
from pared.types import Batch

CUTTINGS = [
    Units(), Weights(), Weights(criteria.magnitude, "layer"), Layers(),
    pytest.param(Layers(criteria.cka), marks=pytest.mark.slow),
]  # fmt: skip


def subject(model=None) -> Subject:
    model = forecaster(recurrent=(5, 4, 3)) if model is None else model
    data = batch(model, samples=40)
    if isinstance(model, MLP):
        data = Batch(data.x[:, 0].repeat(1, 2)[:, :3], data.y.repeat(1, 2))
    return Subject(model, trace(model, data.x[:1]), data, mse_loss)


def parameters(model) -> list[tuple[int, ...]]:
    return [tuple(parameter.shape) for parameter in model.parameters()]


@pytest.mark.parametrize("cutting", CUTTINGS, ids=lambda each: f"{each.what} by {each.criterion.__name__}")
def test_a_cut_and_its_twins_leave_the_network_alone_and_are_as_small(cutting):
    own = subject()
    before, state = snapshot(own.model), torch.get_rng_state()
    scores = cutting.scores(own)
    (small, removal), *_ = cutting.ways(own, scores, Ratio(0.5))
    random, alike = cutting.at_random(own, removal, seed=3)
    again, _ = cutting.at_random(own, removal, seed=3)
    other, _ = cutting.at_random(own, removal, seed=4)
    unchanged(before, own.model)
    assert torch.equal(torch.get_rng_state(), state)
    assert 0 < removal.share < 1
    assert alike.share == pytest.approx(removal.share)
    assert cutting.size(small) < cutting.size(own.model)
    if not isinstance(cutting, Layers):  # layers differ in size
        assert cutting.size(small) == cutting.size(random)
    x = own.batch.x
    assert torch.equal(random(x), again(x))
    assert not torch.equal(random(x), other(x)) or isinstance(cutting, Layers)
    pools = cutting.pools(scores)
    gone = round(0.5 * sum(pool.parts for pool in pools.values()))
    assert removal.share == pytest.approx(gone / sum(pool.parts for pool in pools.values()), abs=0.02)


@pytest.mark.parametrize("cutting", CUTTINGS, ids=lambda each: f"{each.what} by {each.criterion.__name__}")
def test_the_fresh_twin_has_the_shape_and_the_zeros_but_weights_of_its_own(cutting):
    own = subject()
    (small, removal), *_ = cutting.ways(own, cutting.scores(own), Ratio(0.5))

    def build(seed: int, widths) -> Forecaster:
        recurrent = [w for k, width in enumerate((5, 4, 3)) if (w := widths.get(f"recurrent.{k}.l0", width))]
        dense = [w for w in [widths.get("head.0", 4)] if w]
        return Forecaster(2, recurrent, dense, cell="lstm", init="torch", seed=seed).double()

    fresh = cutting.fresh(build, 9, own.structure, removal)
    assert parameters(fresh) == parameters(small)
    assert not any(torch.equal(a, b) for a, b in zip(fresh.parameters(), small.parameters(), strict=True) if a.any())
    for name, mask in (removal.masks or {}).items():
        assert not fresh.get_parameter(name)[~mask].any()
        assert fresh.get_parameter(name)[mask].all()
    assert units_left(own.structure, removal.plan) == trace(fresh, own.batch.x[:1]).units


def test_weights_go_by_score_and_biases_stay():
    own = subject()
    cutting = Weights(criteria.magnitude)
    (small, removal), *_ = cutting.ways(own, cutting.scores(own), Ratio(0.75))
    weights = {name: p for name, p in own.model.named_parameters() if p.dim() > 1}
    assert removal.masks.keys() == weights.keys()
    limit = torch.cat([p.abs().flatten() for p in weights.values()]).quantile(0.75)
    for name, p in own.model.named_parameters():
        assert torch.equal(small.get_parameter(name) != 0, p.abs() > limit if name in weights else p != 0)
    masked = mask_weights(own.model, removal.masks)
    whole = own.model(own.batch.x)
    assert mse_loss(small(own.batch.x), whole) < mse_loss(masked(own.batch.x), whole)  # it is repaired
    assert Weights().size(small) == evaluation.nonzeros(small) == sum(int((p != 0).sum()) for p in small.parameters())
    kept = Weights(keep=("recurrent.0.*", "head*"))
    assert all(name.startswith("recurrent") and "recurrent.0" not in name for name in kept.scores(own))
    _, random = Weights().at_random(own, removal, seed=0)
    assert all(random.masks[name].sum() == mask.sum() for name, mask in removal.masks.items())


@pytest.mark.slow
def test_layers_go_one_by_one_the_lowest_first_and_one_recurrent_layer_stays():
    own = subject()
    names = ["recurrent.0", "recurrent.1", "recurrent.2", "head.0"]
    order: list[str] = []

    def first_of_all(model, data: Batch, loss) -> dict[str, Tensor]:
        present = [name for name in names if any(True for _ in model.get_submodule(name).parameters())]
        order.append(" ".join(present))
        return {name: torch.tensor(float(place)) for place, name in enumerate(present)}

    cutting = Layers(first_of_all)
    scores = cutting.scores(own)
    assert order == [" ".join(names), *(" ".join(names[k:]) for k in (1, 2)), "recurrent.2"]
    assert [float(place) for place in scores.values()] == [0, 1, torch.inf, 2]
    assert cutting.pools(scores) == {"all layers": Pool(4, 1)}
    (small, removal), *_ = cutting.ways(own, scores, Count(3))
    assert [edit.modules[0] for edit in removal.plan.before] == ["recurrent.0", "recurrent.1", "head.0"]
    assert removal.share == 3 / 4
    assert parameters(replay(removal.plan, forecaster(seed=1, recurrent=(5, 4, 3)))) == parameters(small)
    for count in range(8):  # whatever is drawn
        random, _ = cutting.at_random(own, removal, seed=count)
        assert sum(isinstance(m, torch.nn.LSTM) for m in random.recurrent) >= 1


def test_of_the_last_layer_to_go_the_lowest_scored_ones_are_each_tried():
    own = subject()
    names = ("recurrent.0", "recurrent.1", "recurrent.2", "head.0")
    scores = dict(zip(names, torch.tensor([2.0, 0, 1, torch.inf]), strict=True))

    def gone(cutting, count):
        ways = cutting.ways(own, scores, Count(count))
        assert all(removal.share == count / 4 for _, removal in ways)
        return [[edit.modules[0] for edit in removal.plan.before] for _, removal in ways]

    assert gone(Layers(), 1) == [["recurrent.1"], ["recurrent.2"], ["recurrent.0"]]
    assert gone(Layers(tries=2), 1) == [["recurrent.1"], ["recurrent.2"]]
    assert gone(Layers(tries=1), 2) == [["recurrent.1", "recurrent.2"]]
    assert gone(Layers(tries=9), 2) == [["recurrent.1", name] for name in ("recurrent.2", "recurrent.0", "head.0")]


def test_random_deletion_takes_as_many_units_of_each_group():
    own = subject(forecaster())
    scores = {group.name: torch.arange(float(group.width)) for group in own.structure}
    plan = same_counts(Plan({"recurrent.0.l0": (0, 1), "head.0": (0, 1, 2)}), scores, own.structure)
    assert plan.keep == {"recurrent.0.l0": (3, 4), "head.0": (1, 2, 3)}
    assert units_left(own.structure, plan) == 2 + 3 + 3


@pytest.mark.parametrize(
    ("cutting", "model", "said"),
    [
        (Weights(criteria.taylor), forecaster, "are no weights; weights go by scores of weights, such as magnitude"),
        (Weights(criteria.replaceability), forecaster, "are no weights"),
        (Units(criteria.replaceability), forecaster, "not units; take one that scores units or weights"),
        (Weights(keep=("nowhere",)), forecaster, "'nowhere' in keep matches none of recurrent.0.weight_ih_l0"),
        (Weights(keep=("*",)), forecaster, "everything that could go is protected"),
        (Layers(criteria.taylor), forecaster, "not each by one number; layers go by scores of layers"),
        (
            Layers(),
            lambda: forecaster(recurrent=(5,), dense=()),
            "no hidden layer may go: of recurrent.0 one must stay",
        ),
        (Layers(), lambda: MLP(3, (4,), 2).double(), "no hidden layer may go: of layers.0"),
        (Layers(keep=("head.0", "recurrent.1")), forecaster, "no hidden layer may go: of recurrent.0"),
        (Layers(keep=("x*",)), forecaster, r"'x\*' in keep matches none of"),
    ],
)
def test_what_has_nothing_to_lose_says_so(cutting, model, said):
    model = model()
    x = torch.randn(20, 3, dtype=torch.float64) if isinstance(model, MLP) else batch(model, samples=20).x
    y = torch.randn(20, 2 if isinstance(model, MLP) else 1, dtype=torch.float64)
    with pytest.raises((ValueError, StructureError), match=said):
        cutting.scores(Subject(model, trace(model, x[:1]), Batch(x, y), mse_loss))


@pytest.mark.parametrize(
    ("cutting", "rule", "said"),
    [
        (Weights(), Ratios({"a": 0.5}), "weights are removed by a ratio, a threshold or a count"),
        (Weights(), Budget(lambda plan: 0.0, 1.0), "weights are removed by a ratio"),
        (Weights(), Ratio(1e-6), "removes nothing from"),
        (Layers(), Ratio(0.1), "removes 0 of 3 layers, of which 1 to 2 may go"),
        (Layers(), Count(3), "removes 3 of 3 layers, of which 1 to 2 may go"),
        (Layers(), Threshold(1.0), "layers are removed by a ratio or a count"),
        (Units(), Ratio(0.01), "removes nothing"),
    ],
)
def test_rules_that_do_not_suit_say_so(cutting, rule, said):
    own = subject(forecaster())
    with pytest.raises(ValueError, match=said):
        cutting.ways(own, cutting.scores(own), rule)


def test_units_that_weights_left_dead_are_taken_out_after_the_training(tmp_path):
    own = subject(MLP(3, (6, 5), 2, "relu", seed=1).double())
    masks = {name: torch.ones(p.shape, dtype=torch.bool) for name, p in own.model.named_parameters() if p.dim() > 1}
    masks["layers.2.weight"][:, 2] = False  # nothing reads unit 2 of the first layer
    masks["layers.0.weight"][4] = False  # and no input reaches unit 4
    silenced = mask_weights(own.model, masks)
    trained = Trained(Fit(silenced, {}, {}, 0, 0.0), Removal(Plan({}), 0.1, masks))
    finished = Weights().finished(trained, own.batch.x[:1])
    assert finished.plan.keep["layers.0"] == (0, 1, 3, 5)
    assert finished.removal.masks is masks  # the controls are as large as the network before
    torch.testing.assert_close(finished.fit.model(own.batch.x), silenced(own.batch.x))
    assert units_left(own.structure, finished.plan) == 9
    assert {name: tuple(mask.shape) for name, mask in finished.masks.items()} == {
        "layers.0.weight": (4, 3), "layers.2.weight": (5, 4), "layers.4.weight": (2, 5),
    }  # fmt: skip
    store.write_model(tmp_path, finished.fit.model, finished.plan, finished.masks, {})
    again = load(tmp_path, MLP(3, (6, 5), 2, "relu", seed=2).double())
    assert torch.equal(again(own.batch.x), finished.fit.model(own.batch.x))
    assert load_masks(tmp_path, again).keys() == masks.keys()
    whole = Trained(Fit(own.model, {}, {}, 0, 0.0))
    assert Weights().finished(whole, own.batch.x[:1]) is whole
    assert whole.masks is None


@pytest.mark.parametrize("config", [RunConfig(recurrent=(4, 3), dense=(2,)), TableConfig("regression", hidden=(4, 3))])
def test_a_width_of_zero_leaves_a_layer_out(config):
    arguments = (2,) if isinstance(config, RunConfig) else (2, 1)
    first = "recurrent.0.l0" if isinstance(config, RunConfig) else "layers.0"
    model = config.network(*arguments, {first: 0})
    whole = config.network(*arguments, {})
    assert len(list(model.parameters())) < len(list(whole.parameters()))
    assert next(model.parameters()).shape[0] in (12, 3)
