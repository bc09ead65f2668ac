"""Sparse files: every form, bit for bit, as the documented layout says; damage is told, and nothing is destroyed."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from safetensors.torch import save as as_bytes
from torch import nn

import pared
from networks import mlp, snapshot, unchanged
from pared.surgery import Plan, StructureError, load, load_masks, save
from pared.surgery import files as surgery_files
from pared.surgery.packed import pack, unpack
from pared.types import DataError

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def bits_of(tensor):
    """Its bytes: -0 is not +0, and NaN is itself."""
    return tensor.contiguous().view(torch.uint8) if tensor.numel() else tensor


SHAPES = st.lists(st.integers(1, 40), min_size=1, max_size=3)


def random_tensor(shape, dtype, density, first, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator).to(dtype)
    values[torch.rand(shape, generator=generator) > density] = 0.0
    if first is not None:
        values.view(-1)[0] = first
    return values


TENSORS = st.tuples(
    SHAPES, st.sampled_from(DTYPES), st.sampled_from([0.0, 0.01, 0.05, 0.2, 0.9, 1.0]),
    st.sampled_from([None, -0.0, math.nan, math.inf, 1e-40]), st.integers(0, 2**16),
)  # fmt: skip


@given(TENSORS, TENSORS, st.sampled_from(["none", "those stored", "more", "fewer"]))
@settings(max_examples=40, deadline=None)
def test_tensors_and_masks_come_back_bit_for_bit(first, second, kind):
    one, two = random_tensor(*first), random_tensor(*second)
    state = {"a": one, "b": two, "count": torch.arange(3), "empty": torch.zeros(0, 4)}
    mask = one != 0
    if kind == "more":
        mask = mask | (torch.arange(one.numel()).reshape(one.shape) % 3 == 0)
    if kind == "fewer":
        mask = mask & ~one.signbit()
    masks = {} if kind == "none" else {"a": mask}
    packed, metadata = pack(state, masks)
    most = as_bytes(state)
    assert len(as_bytes(packed, metadata)) <= len(most) + (400 + one.numel() // 8) * len(masks)
    found, again = unpack(packed, metadata, {name: tensor.shape for name, tensor in state.items()})
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(bits_of(found[name]), bits_of(tensor))
    assert again.keys() == masks.keys()
    assert all(torch.equal(again[name], masks[name]) for name in masks)


def by_hand(path, name):
    """A tensor read as the layout says, entry by entry."""
    with safe_open(path, "np") as file:
        note, keys = json.loads(file.metadata()["pared"]), set(file.keys())
        values = file.get_tensor(f"{name}:values")
        shape = note["sparse"][name]
        flat = np.zeros(math.prod(shape), values.dtype)
        if f"{name}:bits" in keys:
            bits = file.get_tensor(f"{name}:bits")
            places = [j for j in range(len(flat)) if bits[j // 8] >> (j % 8) & 1]
        else:
            places = file.get_tensor(f"{name}:places")
        for place, value in zip(places, values, strict=True):
            flat[place] = value
        return flat.reshape(shape), keys


def test_the_file_is_laid_out_as_documented(tmp_path):
    torch.manual_seed(0)
    state = {
        "bits": torch.randn(30, 50).masked_fill_(torch.rand(30, 50) < 0.8, 0.0),
        "few": torch.randn(30, 50).masked_fill_(torch.rand(30, 50) < 0.99, 0.0),
        "wide": torch.randn(300, 500).masked_fill_(torch.rand(300, 500) < 0.999, 0.0),
        "dense": torch.randn(30, 50),
        "small": torch.zeros(3),
    }
    save_file(*pack_to(state, tmp_path / "x.safetensors"))
    forms = {"bits": ":bits", "few": ":places", "wide": ":places"}
    for name, form in forms.items():
        found, keys = by_hand(tmp_path / "x.safetensors", name)
        assert f"{name}{form}" in keys
        assert np.array_equal(found, state[name].numpy())
    plain = load_file(tmp_path / "x.safetensors")
    assert plain["few:places"].dtype == torch.uint16
    assert plain["wide:places"].dtype == torch.int32
    assert torch.equal(plain["dense"], state["dense"])
    assert torch.equal(plain["small"], state["small"])


def pack_to(state, path):
    packed, metadata = pack(state, {})
    return packed, path, metadata


def wide(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(40, 60), nn.Tanh(), nn.Linear(60, 3))


@pytest.fixture
def sparse(tmp_path):
    """A folder with a network of masked weights in it, the network, and its masks."""
    model = wide()
    masks = pared.select_weights({n: p.abs() for n, p in model.named_parameters() if p.dim() > 1}, 0.9, "layer")
    model = pared.mask_weights(model, masks)
    return save(tmp_path / "model", model, Plan({}), masks), model, masks


def test_a_masked_network_is_stored_in_little_and_trained_on(sparse):
    folder, model, masks = sparse
    size = (folder / "model.safetensors").stat().st_size
    assert size < 0.25 * sum(p.numel() * 4 for p in model.parameters())
    loaded = load(folder, wide(1))
    assert all(
        torch.equal(bits_of(a), bits_of(b)) for a, b in zip(loaded.parameters(), model.parameters(), strict=True)
    )
    again = load_masks(folder, loaded)
    assert all(torch.equal(again[name], masks[name]) for name in masks)
    x = torch.randn(32, 40)
    split = type("Split", (), {"train": pared.Batch(x, x[:, :3]), "validation": pared.Batch(x[:0], x[:0, :3])})
    trained = pared.fit(loaded, split, pared.TrainConfig(epochs=2), masks=again).model
    assert not trained[0].weight[~masks["0.weight"]].any()
    assert not torch.equal(trained[0].weight, loaded[0].weight)


def test_a_history_of_edits_that_changes_the_number_of_parameters_is_loaded(tmp_path):
    deeper, plan = pared.deepen(wide(), "1", 60)
    save(tmp_path, deeper, plan)
    x = torch.randn(3, 40)
    assert torch.equal(load(tmp_path, wide(1))(x), deeper(x))


def test_a_network_without_masks_has_none(tmp_path):
    save(tmp_path, mlp(), Plan({}))
    assert load_masks(tmp_path, mlp()) == {}
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() is None  # as any other program writes it


def test_masks_that_are_not_the_models_are_refused(tmp_path):
    model = wide()
    for masks, message in [
        ({"nothing": torch.ones(3, dtype=torch.bool)}, "no parameter 'nothing'"),
        ({"0.weight": torch.ones(3, dtype=torch.bool)}, r"booleans shaped \(60, 40\)"),
        ({"0.weight": torch.ones(60, 40)}, "booleans"),
        ({"0.weight": torch.zeros(60, 40, dtype=torch.bool)}, "not zero; use mask_weights"),
    ]:
        with pytest.raises(ValueError, match=message):
            save(tmp_path / "new", model, Plan({}), masks)
        assert not (tmp_path / "new").exists()


def test_names_that_look_like_parts_are_refused(tmp_path):
    model = nn.ModuleDict({"a": wide(), "b": nn.Linear(1, 1)})
    model.register_parameter("a.0.weight:values".replace(".", "_"), nn.Parameter(torch.ones(1)))  # no clash
    with torch.no_grad():
        model["a"][0].weight.zero_()
    save(tmp_path / "fine", model, Plan({}))
    odd = nn.Module()
    odd.register_parameter("w", nn.Parameter(torch.zeros(50, 50)))
    odd.register_parameter("w:bits", nn.Parameter(torch.ones(1)))
    with pytest.raises(ValueError, match="rename"):
        save(tmp_path / "odd", odd, Plan({}))


def test_a_weight_that_is_computed_keeps_its_mask(tmp_path):
    def build():
        return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(40, 60)), nn.Linear(60, 2))

    model = build()
    masks = {"0.weight": torch.rand(60, 40) < 0.3}
    masked = pared.mask_weights(model, masks)
    save(tmp_path, masked, Plan({}), masks)
    loaded = load(tmp_path, build())
    assert torch.equal(loaded[0].weight, masked[0].weight)
    assert torch.equal(load_masks(tmp_path, loaded)["0.weight"], masks["0.weight"])


def _rewritten(folder, change):
    path = folder / "model.safetensors"
    with safe_open(path, "pt") as file:
        parts, metadata = {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata())  # noqa: SIM118
    note = json.loads(metadata["pared"])
    change(parts, note)
    save_file(parts, path, {"pared": json.dumps(note)})


DAMAGE = {
    "a value short": lambda p, n: p.update({"0.weight:values": p["0.weight:values"][:-1].clone()}),
    "no values": lambda p, n: p.pop("0.weight:values"),
    "no bits": lambda p, n: p.pop("0.weight:bits"),
    "bits short": lambda p, n: p.update({"0.weight:bits": p["0.weight:bits"][:-1].clone()}),
    "bits of another type": lambda p, n: p.update({"0.weight:bits": p["0.weight:bits"].float()}),
    "another shape": lambda p, n: n["sparse"].update({"0.weight": [40, 60]}),
    "a huge shape": lambda p, n: n["sparse"].update({"0.weight": [2**40, 2**20]}),
    "another name": lambda p, n: n["sparse"].update({"9.weight": [60, 40]}),
    "a mask of another shape": lambda p, n: n["masks"].update({"0.weight": [3]}),
    "a mask of nothing": lambda p, n: n["masks"].update({"0.bias": [60]}),
    "another format": lambda p, n: n.update({"format": 2}),
    "no shapes": lambda p, n: n.pop("sparse"),
    "shapes that are none": lambda p, n: n.update({"sparse": [1]}),
    "a tensor too many": lambda p, n: p.update({"left": torch.ones(2)}),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_a_data_error(sparse, what):
    folder, *_ = sparse
    _rewritten(folder, DAMAGE[what])
    fresh = wide(1)
    before = snapshot(fresh)
    with pytest.raises(DataError, match="model"):
        load(folder, fresh)
    unchanged(before, fresh)


@pytest.mark.parametrize("places", [[0, 2, 2], [0, 5, 3], [0, 1, 2400], [-1, 1, 2], [0.5, 1.0, 2.0]])
def test_places_must_rise_within_the_tensor(tmp_path, places):
    model = wide()
    with torch.no_grad():
        model[0].weight.zero_()[0, :3] = 1.0
    folder = save(tmp_path / "m", model, Plan({}))
    _rewritten(folder, lambda p, n: p.update({"0.weight:places": torch.tensor(places)}))
    with pytest.raises(DataError, match="do not rise"):
        load(folder, wide(1))


def test_every_cut_of_a_file_is_told(sparse):
    folder, *_ = sparse
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for length in (0, 7, 8, 50, 300, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="damaged"):
            load(folder, wide(1))
        with pytest.raises(DataError, match="damaged"):
            load_masks(folder, wide(1))


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    kept = tmp_path / "mine.txt"
    kept.write_text("mine")
    monkeypatch.setattr(surgery_files, "save_file", full)
    with pytest.raises(OSError, match="no space"):
        save(tmp_path, mlp(), Plan({}))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    monkeypatch.undo()
    save(tmp_path, mlp(), Plan({}))
    with pytest.raises(FileExistsError):
        save(tmp_path, mlp(), Plan({}))


def test_masks_of_another_network_are_refused(sparse):
    folder, *_ = sparse
    with pytest.raises(DataError, match="the network has"):
        load_masks(folder, mlp())
    with pytest.raises((DataError, StructureError)):
        load(folder, mlp())
