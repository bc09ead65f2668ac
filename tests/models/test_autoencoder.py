import pytest
import torch

from pared import Ratio, TrainConfig, fit, insert, prune, testing, trace
from pared.criteria import taylor
from pared.growth import grown_structure
from pared.models import Autoencoder
from pared.types import Batch

BOTH = pytest.mark.parametrize("tied", [False, True])


def drawn(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Data:
    """What is rebuilt: three numbers that rest on one."""

    def __init__(self):
        x = drawn(60, 1) * torch.tensor([1.0, 0.5, -0.3]) + 0.4
        self.train, self.validation = Batch(x, x), Batch(x[:0], x[:0])


@BOTH
def test_it_computes_what_its_formula_says(tied):
    model, x = Autoencoder(4, (3, 2), "tanh", bounded=True, tied=tied, seed=0).double(), drawn(5, 4)
    named = dict(model.named_parameters())
    W = [named[f"encoder.{k}.weight"] for k in (0, 1)]
    b = [named[f"encoder.{k}.bias"] for k in (0, 1)]
    V = [w.T for w in W] if tied else [named[f"decoder.{k}.weight"] for k in (0, 1)]
    c = [named[f"offsets.{k}" if tied else f"decoder.{k}.bias"] for k in (0, 1)]
    h1 = torch.tanh(x @ W[0].T + b[0])
    h2 = torch.tanh(h1 @ W[1].T + b[1])
    down = torch.tanh(h2 @ V[1].T + c[1])
    torch.testing.assert_close(model(x), torch.sigmoid(down @ V[0].T + c[0]), rtol=0, atol=1e-14)
    torch.testing.assert_close(model.encode(x, 1), h1, rtol=0, atol=1e-14)
    torch.testing.assert_close(model.decode(h1, 1), torch.sigmoid(h1 @ V[0].T + c[0]), rtol=0, atol=1e-14)
    assert torch.equal(model.encode(x, 0), x)
    assert model.levels == 2


@BOTH
def test_surgery_keeps_its_laws(tied):
    testing.check_model(Autoencoder(6, (5, 4, 3), tied=tied, seed=0).double(), drawn(4, 6))
    testing.check_criterion(taylor, Autoencoder(4, (3, 2), tied=tied, seed=0).double(), Batch(drawn(8, 4), drawn(8, 4)),
                            torch.nn.functional.mse_loss)  # fmt: skip


def test_a_level_grows_without_a_change_of_what_any_level_rebuilds():
    model, x = Autoencoder(6, (5, 4, 3), seed=0).double(), drawn(4, 6)
    structure, counts = trace(model, x[:1]), {"encoder.1": 2, "decoder.2": 2}
    large = insert(model, structure, counts, seed=1)
    assert [layer.out_features for layer in large.encoder] == [5, 6, 3]
    assert [layer.out_features for layer in large.decoder] == [6, 5, 6]
    for level in (1, 2, 3):
        same = model.decode(model.encode(x, level), level)
        torch.testing.assert_close(large.decode(large.encode(x, level), level), same, rtol=0, atol=1e-12)
    assert {g.name: g.width for g in grown_structure(structure, counts)}["encoder.1"] == 6


@pytest.mark.slow
@BOTH
def test_fit_trains_it_and_what_is_cut(tied):
    data = Data()
    config = TrainConfig(epochs=150, lr=3e-2, batch_size=20)
    whole = fit(Autoencoder(3, (4, 2), "tanh", tied=tied, seed=0).double(), data, config)
    assert whole.curves["train"][-1] < 0.02 * data.train.x.var().item()
    small = prune(whole.model, data.train, taylor, Ratio(0.5))
    again = fit(small, data, config)
    assert {g.name: g.width for g in trace(again.model, data.train.x[:1])}["encoder.1"] == 1
    assert again.curves["train"][-1] < 0.1 * data.train.x.var().item()


def test_seeds_make_the_draw_and_leave_the_global_one():
    before = torch.get_rng_state()
    one, other, third = (Autoencoder(3, (2,), seed=seed).encoder[0].weight for seed in (1, 1, 2))
    assert torch.equal(one, other)
    assert not torch.equal(one, third)
    assert torch.equal(before, torch.get_rng_state())


def test_bad_sizes_are_refused():
    for widths in ((), (3, 0)):
        with pytest.raises(ValueError, match="at least 1, of at least one level"):
            Autoencoder(3, widths)
    with pytest.raises(ValueError, match="unknown activation 'gelu'"):
        Autoencoder(3, (2,), "gelu")
