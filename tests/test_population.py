"""Population-based training: what it repeats, what it copies, and what it refuses."""

import math
from dataclasses import dataclass, replace

import pytest
import torch

from pared import MLP, Batch, Bound, DivergedError, TrainConfig
from pared.population import Selection, replay, train_population
from pared.schedules import Linear, Plateau

CONFIG = TrainConfig(epochs=6, batch_size=16, seed=3)
SPACE = {"lr": (1e-4, 1e-1), "weight_decay": (1e-6, 1e-2)}
HOW = Selection(size=4, every=2, quantile=0.5)


@dataclass
class Data:
    train: Batch
    validation: Batch


def numbers():
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    y = x[:, :1].sin()
    return Data(Batch(x[:40], y[:40]), Batch(x[40:], y[40:]))


def build(seed):
    return MLP(5, (4,), 1, seed=seed)


def equal(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_a_seed_gives_the_same_population_and_its_rounds_the_same_network():
    state = torch.get_rng_state().clone()
    first, second = (train_population(build, numbers(), CONFIG, SPACE, HOW) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert [member.rounds for member in first.members] == [member.rounds for member in second.members]
    best = first.best
    assert best.loss == min(member.loss for member in first.members)
    assert equal(best.fit.model, second.best.fit.model)
    assert equal(best.fit.model, replay(build(best.origin), numbers(), best.rounds).model)
    assert sum(own.epochs for own in best.rounds) == CONFIG.epochs


def test_bound_hyperparameters_follow_one_schedule_through_the_rounds():
    def dropping(seed):
        return MLP(5, (4,), 1, seed=seed, dropout=0.5)

    config = replace(CONFIG, bound=(Bound("*.p", Linear(0.6)),))
    found = train_population(dropping, numbers(), config, {"lr": (1e-3, 1e-2)}, replace(HOW, quantile=0.0))
    for own, at in zip(found.best.rounds, (0.0, 0.2, 0.4), strict=True):
        assert own.bound[0].schedule(0.0) == pytest.approx(at)


def test_losers_go_on_from_winners_with_settings_near_theirs():
    found = train_population(build, numbers(), replace(CONFIG, epochs=4), SPACE, replace(HOW, resample=0.0))
    alone = train_population(build, numbers(), replace(CONFIG, epochs=2), SPACE, HOW)
    order = sorted(range(4), key=lambda k: alone.members[k].loss)
    for loser in order[2:]:
        member = found.members[loser]
        assert member.origin in order[:2]
        for name in SPACE:
            before, after = (getattr(own, name) for own in member.rounds)
            assert after / before == pytest.approx(0.8) or after / before == pytest.approx(1.2) or after in SPACE[name]
    for winner in order[:2]:
        assert found.members[winner].origin == winner
        assert found.members[winner].rounds[0].lr == found.members[winner].rounds[1].lr


def test_without_a_quantile_nobody_copies():
    found = train_population(build, numbers(), CONFIG, SPACE, replace(HOW, quantile=0.0))
    assert [member.origin for member in found.members] == [0, 1, 2, 3]
    assert all(len({own.lr for own in member.rounds}) == 1 for member in found.members)


def test_in_a_small_population_at_least_one_copies():
    found = train_population(build, numbers(), replace(CONFIG, epochs=4), SPACE, Selection(size=2, every=2))
    assert found.members[0].origin == found.members[1].origin


def test_settings_stay_within_their_bounds():
    space = {"lr": (1e-3, 1.1e-3)}
    found = train_population(build, numbers(), replace(CONFIG, epochs=12), space, HOW)
    assert all(1e-3 <= own.lr <= 1.1e-3 for member in found.members for own in member.rounds)


@pytest.mark.parametrize(("space", "message"), [
    ({}, "nothing to search"),
    ({"epochs": (1, 2)}, "epochs"),
    ({"lr": (0.0, 1.0)}, "bounds of lr"),
    ({"lr": (1.0, 0.1)}, "bounds of lr"),
    ({"lr": (1.0, math.inf)}, "bounds of lr"),
    ({"lr": 0.1}, r"a pair .* got 0\.1"),
    ({"lr": (0.1, 0.2, 0.3)}, "a pair"),
])  # fmt: skip
def test_spaces_that_cannot_be_searched_are_refused(space, message):
    with pytest.raises(ValueError, match=message):
        train_population(build, numbers(), CONFIG, space)


def test_a_population_needs_members_validation_data_and_a_survivor():
    with pytest.raises(ValueError, match="2 members"):
        Selection(size=1)
    data = numbers()
    with pytest.raises(ValueError, match="validation"):
        train_population(build, Data(data.train, Batch(data.train.x[:0], data.train.y[:0])), CONFIG, SPACE)
    with pytest.raises(ValueError, match="no rounds"):
        replay(build(0), data, ())
    for config in (replace(CONFIG, patience=3), replace(CONFIG, plateau=Plateau(1.0))):
        with pytest.raises(ValueError, match="leave patience and plateau out"):
            train_population(build, data, config, SPACE)
    broken = Data(Batch(data.train.x, data.train.y * math.nan), data.validation)
    with pytest.raises(DivergedError, match="all members"):
        train_population(build, broken, CONFIG, SPACE)
