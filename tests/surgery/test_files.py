"""Saving and loading: bit for bit, without overwriting, without running anything from a file."""

import json
import pickle
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from networks import batch, forecaster, mlp, plans, snapshot, specs, unchanged
from pared.surgery import Plan, StructureError, cut, load, save, trace
from pared.types import DataError


@pytest.fixture
def saved(tmp_path):
    """A folder with a cut forecaster in it, and the forecaster."""
    model = forecaster()
    structure = trace(model, batch(model).x)
    plan = structure.bind(Plan({"recurrent.0.l0": (0, 2, 3), "head.0": (1,)}))
    small = cut(model, structure, plan)
    return save(tmp_path / "deep" / "model", small, plan), small


@given(specs(), st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_saved_and_loaded_networks_agree_bit_for_bit(tmp_path_factory, spec, data):
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    model, x = spec.build().to(dtype), spec.input().to(dtype)
    try:
        structure = trace(model, x)
    except StructureError:
        return
    plan = structure.bind(data.draw(plans(structure)))
    small = cut(model, structure, plan)
    fresh = spec.build(seed=spec.seed + 1)
    before = snapshot(fresh)
    loaded = load(save(tmp_path_factory.mktemp("saved") / "model", small, plan), fresh)
    unchanged(before, fresh)
    assert all(torch.equal(a, b) for a, b in zip(small.parameters(), loaded.parameters(), strict=True))
    assert torch.equal(small(x), loaded(x))
    assert loaded(x).dtype == dtype


def test_a_loaded_network_trains_on(saved):
    folder, _ = saved
    fresh = forecaster(seed=1)
    fresh.head[1].bias.requires_grad_(False)
    loaded = load(folder, fresh)
    loaded(batch(fresh).x).sum().backward()
    assert loaded.recurrent[0].weight_hh_l0.grad is not None
    assert loaded.head[1].bias.grad is None
    shutil.rmtree(folder)
    assert loaded(batch(fresh).x).isfinite().all()


def test_a_layer_under_two_names_can_be_saved(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh())
    model.append(model[0])
    save(tmp_path, model, Plan({}))
    assert torch.equal(load(tmp_path, model)(torch.ones(1, 3)), model(torch.ones(1, 3)))


def test_nothing_is_overwritten(saved):
    folder, small = saved
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in contents:
        other = folder.parent / name
        other.mkdir()
        (other / name).write_bytes(b"mine")
        with pytest.raises(FileExistsError, match="not overwritten"):
            save(other, small, Plan({}))
        assert [path.name for path in other.iterdir()] == [name]
        assert (other / name).read_bytes() == b"mine"
    with pytest.raises(FileExistsError):
        save(folder, mlp(), Plan({}))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == contents


def test_a_plan_that_could_not_be_replayed_is_not_saved(tmp_path):
    with pytest.raises(StructureError, match="no slices"):
        save(tmp_path / "new", mlp(), Plan({"second": (0,)}))
    assert not (tmp_path / "new").exists()


class Bomb:
    """Raises as soon as it is unpickled."""

    def __reduce__(self):
        return exec, ("raise SystemExit('code from a file was run')",)


DAMAGE = {
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no plan": lambda folder: (folder / "plan.json").unlink(),
    "no folder": shutil.rmtree,
    "weights cut short": lambda folder: _edit(folder / "model.safetensors", lambda b: b[:-9]),
    "weights cut to the header": lambda folder: _edit(folder / "model.safetensors", lambda b: b[:20]),
    "empty weights": lambda folder: _edit(folder / "model.safetensors", lambda b: b""),
    "pickled weights": lambda folder: _edit(folder / "model.safetensors", lambda b: pickle.dumps(Bomb())),
    "torch's own file": lambda folder: torch.save({"w": torch.ones(2)}, folder / "model.safetensors"),
    "weights are a folder": lambda folder: (DAMAGE["no weights"](folder), (folder / "model.safetensors").mkdir()),
    "plan cut short": lambda folder: _edit(folder / "plan.json", lambda b: b[:-30]),
    "pickled plan": lambda folder: _edit(folder / "plan.json", lambda b: pickle.dumps(Bomb())),
    "plan is no plan": lambda folder: _edit(folder / "plan.json", lambda b: b'{"edits": [{"edit": "keep"}]}'),
    "plan is not text": lambda folder: _edit(folder / "plan.json", lambda b: b"\xff\xfe\x00"),
    "plan removes less": lambda folder: _edit_units(folder, [0, 2, 3, 4]),
}


def _edit(path, change):
    path.write_bytes(change(path.read_bytes()))


def _edit_units(folder, units):
    plan = json.loads((folder / "plan.json").read_text())
    plan["edits"][0]["units"] = units
    (folder / "plan.json").write_text(json.dumps(plan))


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_folders_are_data_errors(saved, what):
    folder, _ = saved
    DAMAGE[what](folder)
    fresh = forecaster(seed=1)
    before = snapshot(fresh)
    with pytest.raises(DataError, match="model"):
        load(folder, fresh)
    unchanged(before, fresh)


@pytest.mark.parametrize("fresh", [forecaster("gru"), forecaster(recurrent=(6, 3)), forecaster(recurrent=(5,)), mlp()])
def test_a_model_of_another_architecture_is_refused(saved, fresh):
    with pytest.raises((StructureError, DataError)):
        load(saved[0], fresh)


def test_units_out_of_range_in_a_file_are_refused(saved):
    _edit_units(saved[0], [0, 2, 9])
    with pytest.raises(StructureError, match="units 0 to 4"):
        load(saved[0], forecaster())
