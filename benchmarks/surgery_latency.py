"""What cutting an LSTM buys in milliseconds: `python benchmarks/surgery_latency.py [out.json]`.

An LSTM of one input and a linear reader, 22 steps, batch 1 and 256, in torch and in onnxruntime, one thread: half of
the units cut, the same units masked only, and cuts to widths off the multiples of 8. Networks take turns in short
rounds; medians of processor time over rounds. Needs the extra "onnx".
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from facts import machine, write
from torch import Tensor, nn

import pared
from pared.evaluation.cost import macs
from pared.export import to_onnx

STEPS, ROUNDS, SLICE = 22, 9, 0.02  # seconds a turn
CUTS = ((16, 8), (16, 12), (64, 32), (64, 28), (256, 128), (256, 125), (512, 256), (512, 250))
GOAL = 2.5


class Reader(nn.Module):
    """LSTM(1, width) -> Linear(width, 1) on the last step."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, width, batch_first=True)
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


Run = Callable[[Tensor], object]


def in_torch(model: nn.Module) -> Run:
    return torch.no_grad()(model)


def in_onnxruntime(model: nn.Module) -> Run:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        data = to_onnx(model, torch.randn(1, STEPS, 1), Path(folder) / "model.onnx").read_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x.numpy()})


def in_turns(calls: dict[str, Run], x: Tensor) -> dict[str, float]:
    """Milliseconds of each call: the median over rounds of the processor time of a short run of it."""
    counts = {}
    for name, call in calls.items():
        for _ in range(5):
            call(x)
        start = time.perf_counter()
        call(x)
        counts[name] = max(1, round(SLICE / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.process_time()
            for _ in range(counts[name]):
                call(x)
            times[name].append(1000 * (time.process_time() - start) / counts[name])
    return {name: statistics.median(values) for name, values in times.items()}


def measure(width: int, left: int) -> list[dict[str, Any]]:
    model = Reader(width).eval()
    structure = pared.trace(model, torch.randn(1, STEPS, 1))
    plan = structure.bind(pared.Plan({"lstm.l0": tuple(range(left))}))
    models = {
        "full": model,
        "masked": pared.mask(model, structure, plan),
        "cut": pared.cut(model, structure, plan),
    }
    rows = []
    for engine, start in (("torch", in_torch), ("onnxruntime", in_onnxruntime)):
        calls = {name: start(each) for name, each in models.items()}
        for batch in (1, 256):
            x = torch.randn(batch, STEPS, 1)
            took = in_turns(calls, x)
            rows.append(
                {"units": width, "left": left, "batch": batch, "engine": engine}
                | {f"{name}, ms": round(value, 4) for name, value in took.items()}
                | {"cut, times faster": round(took["full"] / took["cut"], 2)}
                | {"masked, times faster": round(took["full"] / took["masked"], 2)}
                | {"fewer multiply-adds": round(macs(models["full"], x) / macs(models["cut"], x), 2)}
            )
    return rows


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = []
    print("units         batch engine          full ms  masked ms     cut ms   masked      cut   of multiply-adds")
    for width, left in CUTS:
        for row in measure(width, left):
            results.append(row)
            print(
                f"{width:4} -> {left:4} {row['batch']:6} {row['engine']:12} {row['full, ms']:10.3f} "
                f"{row['masked, ms']:10.3f} {row['cut, ms']:10.3f} {row['masked, times faster']:7.2f}x "
                f"{row['cut, times faster']:7.2f}x {row['fewer multiply-adds']:7.2f}x",
                flush=True,
            )
    goal = {
        f"{row['engine']}, batch {row['batch']}": row["cut, times faster"] >= GOAL
        for row in results
        if (row["units"], row["left"]) == (512, 256)
    }
    print(f"512 -> 256 at least {GOAL} times faster: {goal}")
    facts = machine("torch", "onnxruntime")
    write({"machine": facts, "steps": STEPS, "goal": GOAL, "met": goal, "results": results}, "surgery_latency")


if __name__ == "__main__":
    main()
