"""Out of the door: ONNX equals torch, nothing is overwritten, the compiled and exported small model agree."""

import sys

import pytest
import torch
from torch import nn

import pared
from networks import snapshot, unchanged
from pared import export
from pared.criteria import magnitude
from pared.export import Footprint, SizeTable, compare_sizes, quantise, to_onnx
from pared.types import Batch
from zoo import PROBES, probe


def small_of(name: str) -> tuple[nn.Module, nn.Module, tuple[torch.Tensor, ...], pared.Plan]:
    """A probe network, half of it, its inputs, and the plan between them."""
    model, inputs = probe(name)
    structure = pared.trace(model, inputs)
    scores = magnitude(model, Batch(inputs[0], inputs[0]), nn.functional.mse_loss)
    plan = pared.select(pared.by_unit(scores, structure), structure, 0.5)
    return model, pared.cut(model, structure, plan), inputs, plan


def run(path, *inputs):
    """What onnxruntime makes of a file."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(path))
    names = [given.name for given in session.get_inputs()]
    return torch.from_numpy(session.run(None, {n: x.numpy() for n, x in zip(names, inputs, strict=True)})[0])


def needs_onnx() -> None:
    for name in export.EXTRA:
        pytest.importorskip(name)


EXPORTED = [
    pytest.param("LSTM 1-16-4, Linear 4-4-1", marks=pytest.mark.slow),
    pytest.param("residual CNN with BatchNorm", marks=pytest.mark.slow),
    pytest.param("TransformerEncoderLayer", marks=pytest.mark.slow),
    pytest.param("GRU between Linears", marks=pytest.mark.slow),
    pytest.param("bidirectional LSTM, 2 layers", marks=pytest.mark.slow),
    pytest.param("encoder-decoder LSTM", marks=pytest.mark.slow),
    pytest.param("encoder and LSTMCell loop", marks=pytest.mark.slow),
    pytest.param("MobileNetV2", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("name", EXPORTED)
def test_onnx_equals_torch(name, tmp_path):
    needs_onnx()
    _, small, inputs, _ = small_of(name)
    before, random = snapshot(small), torch.get_rng_state()
    path = to_onnx(small, inputs, tmp_path / "deep" / "small.onnx")
    unchanged(before, small)
    assert torch.equal(random, torch.get_rng_state())
    assert path == tmp_path / "deep" / "small.onnx"
    for samples in (1, 5):
        given = tuple(torch.randn(samples, *x.shape[1:]) for x in inputs)
        expected = small(*given).detach()
        assert float((run(path, *given) - expected).abs().max() / expected.abs().max()) < 1e-5
    assert str(tmp_path).encode() not in path.read_bytes()
    assert b".py" not in path.read_bytes()

    with pytest.raises(FileExistsError, match="not overwritten"):
        to_onnx(small, inputs, path)
    less = quantise(path, tmp_path / "small.int8.onnx")
    got = run(less, *inputs)
    expected = small(*inputs).detach()
    assert got.shape == expected.shape
    assert float((got - expected).abs().max() / expected.abs().max()) < 0.2
    with pytest.raises(FileExistsError):
        quantise(path, less)


@pytest.mark.slow
def test_quantised_files_are_smaller(tmp_path):
    needs_onnx()
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 8)).eval()
    plain = to_onnx(model, torch.randn(1, 64), tmp_path / "a.onnx")
    assert quantise(plain, tmp_path / "b.onnx").stat().st_size < 0.35 * plain.stat().st_size


class Lies(nn.Module):
    """Gives other outputs in an export than in a run."""

    def __init__(self, wrong: float) -> None:
        super().__init__()
        self.layer, self.wrong = nn.Linear(3, 2), wrong

    def forward(self, x):
        return self.layer(x) + (self.wrong if torch.compiler.is_exporting() else 0.0)


class Refuses(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


class StepsFirst(nn.Module):
    """Its first axis is time, not the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.layer = nn.RNN(2, 3), nn.Linear(3, 1)

    def forward(self, x):
        return self.layer(self.rnn(x)[0][-1])


@pytest.mark.slow
def test_what_differs_is_not_written(tmp_path):
    needs_onnx()
    for model in (Lies(0.1), Lies(float("nan")), Refuses()):
        with pytest.raises(ValueError, match=r"off by|cannot be exported"):
            to_onnx(model, torch.randn(2, 3), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())
    assert to_onnx(Lies(0.0), torch.randn(2, 3), tmp_path / "x.onnx").exists()


@pytest.mark.slow
def test_an_output_near_zero_is_measured_by_the_others(tmp_path):
    """Large sums that nearly cancel: a single output's rounding may be large beside it."""
    needs_onnx()
    model = nn.Sequential(nn.Linear(64, 512), nn.Tanh(), nn.Linear(512, 1)).eval()
    x = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model[2].bias -= model(x)[0]
    assert float(model(x).detach().abs()) < 1e-6
    assert to_onnx(model, x, tmp_path / "x.onnx").exists()


@pytest.mark.slow
def test_a_network_whose_first_axis_is_time_is_exported_as_it_stands(tmp_path):
    needs_onnx()
    model, x = StepsFirst().eval(), torch.randn(5, 2, 2)
    with pytest.raises(ValueError, match="fixed=True"):
        to_onnx(model, x, tmp_path / "x.onnx")
    path = to_onnx(model, x, tmp_path / "x.onnx", fixed=True)
    torch.testing.assert_close(run(path, x), model(x))


@pytest.mark.slow
def test_tokens_are_inputs_too(tmp_path):
    needs_onnx()
    model = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 2)).eval()
    tokens = torch.randint(7, (2, 3))
    torch.testing.assert_close(run(to_onnx(model, tokens, tmp_path / "x.onnx"), tokens), model(tokens))


@pytest.mark.slow
def test_sizes_side_by_side():
    needs_onnx()
    full, small, inputs, _ = small_of("residual CNN with BatchNorm")
    before = snapshot(full)
    table = compare_sizes(full, small, inputs, repeats=2)
    unchanged(before, full)
    assert [(row.network, row.engine) for row in table.rows] == [
        (name, engine) for name in ("full", "small") for engine in ("torch", "onnxruntime", "onnxruntime, 8 bits")
    ]
    for large, little in zip(table.rows[:3], table.rows[3:], strict=True):
        assert large.parameters > little.parameters
        assert large.macs > little.macs
        assert large.bytes > little.bytes
    for row in table.rows:
        assert row.milliseconds_1 > 0
        assert row.milliseconds_256 > 0
        assert row.deviation <= {"torch": 0.0, "onnxruntime": 1e-5}.get(row.engine, 0.2)
    assert len(str(table).splitlines()) == 7


def test_the_size_in_torch_is_that_of_the_saved_file(tmp_path, monkeypatch):
    full, small, inputs, plan = small_of("LSTM 1-16-4, Linear 4-4-1")
    pared.save(tmp_path, small, plan)
    table = compare_sizes(full, small, inputs, repeats=1, onnx=False)
    assert [row.engine for row in table.rows] == ["torch", "torch"]
    assert table.rows[1].bytes == (tmp_path / "model.safetensors").stat().st_size
    assert table.rows[1].parameters == pared.evaluation.parameters(small)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else name)
    assert len(compare_sizes(full, small, inputs, repeats=1).rows) == 2
    for call in (
        lambda: to_onnx(small, inputs, tmp_path / "x.onnx"),
        lambda: quantise(tmp_path / "x.onnx", tmp_path / "y.onnx"),
        lambda: compare_sizes(full, small, inputs, repeats=1, onnx=True),
    ):
        with pytest.raises(ImportError, match=r'onnxscript, not installed here: pip install "pared\[onnx\]"'):
            call()


def test_the_table_reads_as_a_table():
    row = Footprint("full", "torch", 12345, 67, 8, 0.5, 12.0, 0.0)
    lines = str(SizeTable((row, row))).splitlines()
    assert lines[0].replace("ms, batch ", "ms").split()[-3:] == ["ms1", "ms256", "deviation"]
    assert lines[1].split() == ["full", "torch", "12,345", "67", "8", "0.5", "12", "0"]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED[:4] + [n for n in PROBES if "encoder" in n and "Transformer" not in n])
def test_torch_export_of_the_small_model_agrees(name):
    _, small, inputs, _ = small_of(name)
    with torch.no_grad():
        program = torch.export.export(small, inputs)
        torch.testing.assert_close(program.module()(*inputs), small(*inputs), atol=1e-6, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in PROBES if n not in ("ResNet-18", "MobileNetV2")])
def test_torch_compile_of_the_small_model_agrees(name):
    _, small, inputs, _ = small_of(name)
    torch.compiler.reset()
    compiled = torch.compile(small, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), small(*inputs), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", EXPORTED[:3])
def test_small_models_are_saved_and_loaded(name, tmp_path):
    _, small, inputs, plan = small_of(name)
    fresh, _ = probe(name, seed=1)
    loaded = pared.load(pared.save(tmp_path / "small", small, plan), fresh)
    assert torch.equal(loaded.eval()(*inputs), small(*inputs))
