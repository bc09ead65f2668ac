"""Out of the door: ONNX that is checked before it is handed over, 8-bit weights, and a table of what was saved."""

import copy
import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as as_safetensors
from torch import Tensor, nn
from torch.utils import _pytree

from pared.evaluation.cost import Example, batch_of, inputs_of, latency, macs, median_milliseconds, parameters
from pared.surgery.files import packed

EXTRA = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
BATCHES = (1, 256)  # what `compare_sizes` times


@dataclass(frozen=True)
class Footprint:
    """What one network costs in one engine.

    `bytes` is the size of its file (that of `save` for torch, ONNX for the others), `milliseconds_1` and
    `milliseconds_256` are medians of a batch of 1 and 256, `deviation` is the largest distance from its outputs in
    torch, as a fraction of the largest of these.
    """

    network: str
    engine: str
    parameters: int
    macs: int
    bytes: int
    milliseconds_1: float
    milliseconds_256: float
    deviation: float


@dataclass(frozen=True)
class SizeTable:
    """Two networks in every engine there is; printed, it is a table."""

    rows: tuple[Footprint, ...]

    def __str__(self) -> str:
        head = [field.name.replace("milliseconds_", "ms, batch ") for field in fields(Footprint)]
        body = [[_shown(getattr(row, field.name)) for field in fields(Footprint)] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
        left = 2  # the names stand left, the numbers right
        return "\n".join(
            "  ".join(
                f"{cell:{'<' if i < left else '>'}{w}}" for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in (head, *body)
        )


def _shown(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def to_onnx(model: nn.Module, example: Example, path: str | Path, *, fixed: bool = False) -> Path:
    """Writes a network as one ONNX file, after onnxruntime has given the same outputs as torch on random inputs.

    `example` is one batch (n, ...), or a sequence of the positional inputs. The number of samples, the first axis of
    every input, stays free, every other size is that of the example (a recurrent layer's number of steps too); `fixed`
    holds the first axis as well, for networks in which it is no batch. Evaluation mode. The file holds neither source
    code nor the paths of this machine.

    Returns: `path`.
    Cost: an export (2 to 10 seconds) and a few forward passes.
    Raises: ImportError without the extra "onnx", FileExistsError rather than overwrite, ValueError when the network
    cannot be exported or its outputs differ by more than 1e-5 of the largest (float32; 1e-10 in float64); then nothing
    is written.
    """
    _need_extra()
    path = _free(path)
    data = _onnx_bytes(model, example, fixed)
    _check(model, example, data, fixed)
    return _write(path, data)


def quantise(path_in: str | Path, path_out: str | Path) -> Path:
    """onnxruntime's dynamic quantisation: weights in 8 bits, activations rounded as they come; outputs change.

    Weights are unsigned: signed ones overflow on processors without VNNI (a transformer layer was off by 0.2 there, by
    0.01 with unsigned ones). Matrix products, convolutions and LSTMs shrink; onnxruntime leaves GRU and RNN alone.

    Returns: `path_out`.
    Raises: ImportError without the extra "onnx", FileNotFoundError, FileExistsError rather than overwrite.
    """
    _need_extra()
    path_out = _free(path_out)
    return _write(path_out, _quantised(Path(path_in).read_bytes()))


def compare_sizes(
    full: nn.Module, small: nn.Module, example: Example, *, repeats: int = 50, onnx: bool | None = None
) -> SizeTable:
    """Parameters, multiply-adds, file size and latency of two networks: in torch, and in onnxruntime in 32 and 8 bits.

    `onnx` None takes onnxruntime where it is installed. All engines use torch's number of threads.

    Returns: `SizeTable`, a row for each network and engine.
    Cost: two exports, `repeats` + 10 forward passes of 1 and 256 examples a row.
    Raises: ValueError as `macs` and `to_onnx`; ImportError for `onnx` True without the extra.
    """
    if onnx is None:
        onnx = not _missing()
    rows: list[Footprint] = []
    for name, model in (("full", full), ("small", small)):
        own = parameters(model), macs(model, example)
        times = [latency(model, example, repeats, batch) for batch in BATCHES]
        rows.append(Footprint(name, "torch", *own, len(as_safetensors(*packed(model))), times[0], times[1], 0.0))
        if not onnx:
            continue
        _need_extra()
        plain = _onnx_bytes(model, example, fixed=False)
        _check(model, example, plain, fixed=False)
        for engine, data in (("onnxruntime", plain), ("onnxruntime, 8 bits", _quantised(plain))):
            run = _session(data)
            times = [median_milliseconds(_call(run, batch_of(example, batch)), repeats) for batch in BATCHES]
            distance = _deviation(model, run, [batch_of(example, BATCHES[-1])])
            rows.append(Footprint(name, engine, *own, len(data), times[0], times[1], distance))
    return SizeTable(tuple(rows))


Run = Callable[[tuple[Tensor, ...]], list[Any]]


def _call(run: Run, inputs: tuple[Tensor, ...]) -> Callable[[], object]:
    return lambda: run(inputs)


def _missing() -> list[str]:
    return [name for name in EXTRA if importlib.util.find_spec(name) is None]


def _need_extra() -> None:
    if missing := _missing():
        raise ImportError(f'ONNX needs {", ".join(missing)}, not installed here: pip install "pared[onnx]"')


def _free(path: str | Path) -> Path:
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists and is not overwritten; choose another name")
    return path


def _write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(data)
    return path


def _onnx_bytes(model: nn.Module, example: Example, fixed: bool) -> bytes:
    inputs = inputs_of(example) if fixed else batch_of(example, 2)  # an export takes a batch of 1 for a constant
    shapes = None if fixed else tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)
    try:
        with _quiet(), torch.no_grad(), torch.random.fork_rng(devices=[]):
            program = torch.onnx.export(
                copy.deepcopy(model).eval(),
                inputs,
                dynamo=True,
                external_data=False,
                dynamic_shapes=shapes,
                verbose=False,
            )
            assert program is not None
            proto = program.model_proto
    except Exception as error:  # the exporter passes on whatever it met
        raise ValueError(
            f"{type(model).__name__} cannot be exported to ONNX: {error}; if its first axis is no batch, "
            "or its code fixes the batch, use fixed=True"
        ) from error
    for node in (*proto.graph.node, *(node for function in proto.functions for node in function.node)):
        del node.metadata_props[:]  # each holds the stack of the Python code it comes from
    return bytes(proto.SerializeToString())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on its own insides."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _session(data: bytes) -> Run:
    """A function that runs ONNX bytes with torch's number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors are raised
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def run(inputs: tuple[Tensor, ...]) -> list[Any]:
        return list(session.run(None, {n: x.cpu().numpy() for n, x in zip(names, inputs, strict=True)}))

    return run


def _check(model: nn.Module, example: Example, data: bytes, fixed: bool) -> None:
    """Raises ValueError unless onnxruntime gives what torch gives: on the example and on random inputs."""
    given = inputs_of(example)
    generator = torch.Generator().manual_seed(0)
    counts = (len(given[0]),) * 3 if fixed else (1, 2, 13)
    tries = [given, *(tuple(_random(x, count, generator) for x in given) for count in counts)]
    real = [t.dtype for t in (*model.parameters(), *given) if t.is_floating_point()] or [torch.float32]
    limit = max(TOLERANCE.get(dtype, 1e-5) for dtype in real)
    try:
        run = _session(data)
        worst = _deviation(model, run, tries)
    except Exception as error:  # onnxruntime has errors of its own, and arrays may not fit
        raise ValueError(
            f"onnxruntime cannot run {type(model).__name__}: {error}; float64 is not supported everywhere, "
            "try model.float(); if the first axis is no batch, use fixed=True"
        ) from error
    if not worst <= limit:
        raise ValueError(
            f"onnxruntime's outputs of {type(model).__name__} are off by {worst:.1e} of the largest (at most "
            f"{limit:.0e} is allowed), so nothing was written; if the first axis is no batch, use fixed=True"
        )


def _random(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Entries of the example in random places, with noise where they are real numbers."""
    shape = (count, *x.shape[1:])
    picked = x.detach().cpu().flatten()[torch.randint(x.numel(), shape, generator=generator)]
    if picked.is_floating_point():
        picked = picked + torch.randn(shape, generator=generator).to(picked.dtype)
    return picked


def _deviation(model: nn.Module, run: Run, tries: Sequence[tuple[Tensor, ...]]) -> float:
    """The largest distance between the outputs of torch and of onnxruntime, over the largest output of all tries.

    One output may be near zero, where the rounding of what it was summed from is not small beside it.
    """
    device = next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))
    gaps: dict[int, float] = {}
    scales: dict[int, float] = {}
    for inputs in tries:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            outputs = copy.deepcopy(model).eval()(*(x.to(device) for x in inputs))
        for place, (expected, got) in enumerate(zip(_tensors(outputs), run(inputs), strict=True)):
            gap, scale = _distance(expected.detach().cpu().double(), torch.from_numpy(got).double())
            gaps[place] = max(gap, gaps.get(place, 0.0))
            scales[place] = max(scale, scales.get(place, 1e-12))
    return max((gap / scales[place] for place, gap in gaps.items()), default=0.0)


def _distance(expected: Tensor, got: Tensor) -> tuple[float, float]:
    """The largest distance, and the largest value expected."""
    if expected.shape != got.shape:
        raise ValueError(f"an output is shaped {tuple(got.shape)} instead of {tuple(expected.shape)}")
    finite = expected.isfinite()
    if not torch.equal(finite, got.isfinite()):
        return float("inf"), 0.0
    if not finite.any():
        return 0.0, 0.0
    return float((expected - got)[finite].abs().max()), float(expected[finite].abs().max())


def _tensors(outputs: Any) -> list[Tensor]:
    return [leaf for leaf in _pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def _quantised(data: bytes) -> bytes:
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        plain, prepared, small = (str(Path(folder) / f"{name}.onnx") for name in ("plain", "prepared", "small"))
        Path(plain).write_bytes(data)
        quant_pre_process(plain, prepared)  # without it, graphs of torch's newer exporter are refused
        quantize_dynamic(prepared, small, weight_type=QuantType.QUInt8)
        return Path(small).read_bytes()
