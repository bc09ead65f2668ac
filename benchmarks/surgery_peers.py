"""pared, Torch-Pruning and torch's own pruning on the same networks: `python benchmarks/surgery_peers.py [out.json]`.

Each removes half of the units by magnitude. The result is compared with a masked reference made of the same decisions:
the uncut network in which nothing reads a removed unit. Works: outputs agree to 1e-5 of the largest, and the network is
smaller. Then tracing and cutting, in turns. Needs `pip install --no-deps torch-pruning`.
"""

import copy
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch_pruning
from facts import alternating, machine, write
from torch import Tensor, nn
from torch.ao.pruning._experimental.pruner import SaliencyPruner
from torch.ao.pruning._experimental.pruner.lstm_saliency_pruner import LSTMSaliencyPruner
from torch.nn.utils import prune

import pared
from pared.criteria import magnitude
from zoo import PROBES, ResNet18, Tower, probe

LIMIT, ROUNDS = 1e-5, 15
Inputs = tuple[Tensor, ...]
Pair = tuple[
    nn.Module, list[Tensor]
]  # what the tool makes, and outputs of masked references, one of which is to be met


def by_pared(model: nn.Module, inputs: Inputs) -> Pair:
    structure = pared.trace(model, inputs)
    plan = half(model, structure, inputs, keep=tuple(group.name for group in structure if not group.exact))
    return pared.cut(model, structure, plan), [output(pared.mask(model, structure, plan), inputs)]


def half(model: nn.Module, structure: pared.Structure, inputs: Inputs, keep: tuple[str, ...] = ()) -> pared.Plan:
    scores = magnitude(model, pared.Batch(inputs[0], inputs[0]), nn.functional.mse_loss)
    return pared.select(pared.by_unit(scores, structure), structure, 0.5, keep=keep)


def by_torch_pruning(model: nn.Module, inputs: Inputs) -> Pair:
    """Its usual pruner; the masked reference zeroes the weights that its groups remove on the reading side."""
    small, masked = copy.deepcopy(model), copy.deepcopy(model)
    names = {module: name for name, module in small.named_modules()}
    pruner = torch_pruning.pruner.MagnitudePruner(
        small, inputs if len(inputs) > 1 else inputs[0], importance=torch_pruning.importance.MagnitudeImportance(p=1),
        pruning_ratio=0.5, ignored_layers=[last(small)],
    )  # fmt: skip
    for group in pruner.step(interactive=True):
        for dependency, places in group:
            module = dependency.target.module
            if module in names:
                silence(masked.get_submodule(names[module]), dependency.handler.__name__, list(places))
        group.prune()
    return small, [output(masked, inputs)]


def silence(module: nn.Module, action: str, places: list[int]) -> None:
    with torch.no_grad():
        if isinstance(module, nn.LSTM | nn.GRU):
            for name, weight in module.named_parameters():
                wanted = "weight_ih_l0" if "in_channels" in action else "weight_hh"
                if name.startswith(wanted):
                    weight[:, places] = 0.0
        elif isinstance(module, nn.Linear | nn.modules.conv._ConvNd) and "in_channels" in action:
            module.weight[:, places] = 0.0


def last(model: nn.Module) -> nn.Module:
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]


def by_torch_ao(model: nn.Module, inputs: Inputs) -> Pair:
    """torch.ao.pruning: its own masked network is a reference; the one in which nothing reads what went is another."""
    prepared = copy.deepcopy(model)
    recurrent = any(isinstance(module, nn.LSTM) for module in model.modules())
    kind = LSTMSaliencyPruner if recurrent else SaliencyPruner
    pruner = kind({"sparsity_level": 0.5})
    pruner.prepare(prepared, [{"tensor_fqn": name} for name in cuttable(prepared)])
    pruner.enable_mask_update = True
    pruner.step()
    expected = [output(prepared, inputs)]
    structure = pared.trace(model, inputs)
    masks = {
        name: module.parametrizations.weight[0].mask.nonzero().flatten().tolist()
        for name, module in prepared.named_modules()
        if name in structure and hasattr(getattr(module, "parametrizations", None), "weight")
    }
    if masks:
        expected.append(output(pared.mask(model, structure, pared.Plan(masks)), inputs))
    return pruner.prune(), expected


def by_ln_structured(model: nn.Module, inputs: Inputs) -> Pair:
    """torch.nn.utils.prune: rows become zeros, nothing becomes smaller."""
    masked = copy.deepcopy(model)
    for name in cuttable(masked):
        path, _, leaf = name.rpartition(".")
        prune.ln_structured(masked.get_submodule(path), leaf, 0.5, n=1, dim=0)
        prune.remove(masked.get_submodule(path), leaf)
    return masked, [output(masked, inputs)]


def output(model: nn.Module, inputs: Inputs) -> Tensor:
    with torch.no_grad():
        return model.eval()(*inputs)


def cuttable(model: nn.Module) -> list[str]:
    """Weights of dense, convolutional and recurrent layers, but for the last layer's."""
    kinds = nn.Linear | nn.modules.conv._ConvNd | nn.RNNBase
    modules = [(name, m) for name, m in model.named_modules() if isinstance(m, kinds) and m is not last(model)]
    return [
        f"{name}.{leaf}".lstrip(".")
        for name, m in modules
        for leaf, weight in m.named_parameters(recurse=False)
        if weight.dim() > 1
    ]


TOOLS: dict[str, Callable[[nn.Module, Inputs], Pair]] = {
    "pared": by_pared,
    "Torch-Pruning": by_torch_pruning,
    "torch.ao.pruning": by_torch_ao,
    "ln_structured": by_ln_structured,
}


def verdict(tool: str, network: str) -> dict[str, Any]:
    """What became of one network in the hands of one tool."""
    model, inputs = probe(network)
    row: dict[str, Any] = {"network": network, "tool": tool, "parameters": count(model)}
    start = time.perf_counter()
    try:
        small, expected = TOOLS[tool](model, inputs)
        row["seconds"] = round(time.perf_counter() - start, 4)
        row["left"] = count(small)
        got = output(small, inputs)
        row["error"] = min(float((got - wanted).abs().max() / wanted.abs().max()) for wanted in expected)
    except Exception as error:  # a crash is what is looked for
        words = " ".join(str(error).split())
        message = f"{type(error).__name__}: {words if len(words) < 160 else f'{words[:60]} ... {words[-90:]}'}"
        return row | {"seconds": round(time.perf_counter() - start, 4), "verdict": "crashes", "message": message}
    smaller = row["left"] < row["parameters"]
    right = row["error"] <= LIMIT
    row["verdict"] = ("works" if smaller else "masks only") if right else "wrong"
    if not right and any(isinstance(module, nn.LayerNorm) for module in model.modules()):
        row["verdict"] = "not exact"
        row["message"] = (
            "it cuts through LayerNorm, which no mask can match; pared marks such groups and left them whole"
        )
    if not smaller and tool != "ln_structured":
        row["verdict"] = "cuts nothing"
    return row


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def side_by_side(build: Callable[[], nn.Module], x: Tensor) -> dict[str, Any]:
    """Tracing and cutting: bare (the first half of every group) and as each tool's users call it (by magnitude).

    Torch-Pruning changes the model that it gets, pared copies it: its time is given with and without a copy.
    """
    model = build().eval()

    def bare() -> None:
        structure = pared.trace(model, x)
        plan = pared.Plan({group.name: tuple(range(group.width // 2)) for group in structure})
        pared.cut(model, structure, plan)

    def usual() -> None:
        structure = pared.trace(model, x)
        pared.cut(model, structure, half(model, structure, (x,)))

    def peer(act: Callable[[nn.Module, Tensor], None], copied: bool) -> Callable[[], tuple[float, float]]:
        def timed() -> tuple[float, float]:
            given = None if copied else copy.deepcopy(model)
            start, used = time.perf_counter(), time.process_time()
            act(copy.deepcopy(model) if given is None else given, x)
            return time.perf_counter() - start, time.process_time() - used

        return timed

    return alternating(
        {
            "pared, bare": bare,
            "Torch-Pruning, bare, with a copy": peer(peer_bare, True),
            "Torch-Pruning, bare, in place": peer(peer_bare, False),
            "pared, by magnitude": usual,
            "Torch-Pruning, by magnitude, with a copy": peer(peer_usual, True),
            "Torch-Pruning, by magnitude, in place": peer(peer_usual, False),
        },
        ROUNDS,
    )


def peer_bare(model: nn.Module, x: Tensor) -> None:
    graph = torch_pruning.DependencyGraph().build_dependency(model, x)
    for group in list(graph.get_all_groups(ignored_layers=[last(model)])):
        root = group[0].dep
        places = list(range(len(group[0].idxs) // 2))
        graph.get_pruning_group(root.target.module, root.handler, places).prune()


def peer_usual(model: nn.Module, x: Tensor) -> None:
    importance = torch_pruning.importance.MagnitudeImportance(p=1)
    torch_pruning.pruner.MagnitudePruner(
        model, x, importance=importance, pruning_ratio=0.5, ignored_layers=[last(model)]
    ).step()


def tower() -> dict[str, Any]:
    """Four LSTM layers of 1,024 units: trace, magnitude, cut."""
    found = {}
    for one in (False, True):
        model, x = Tower(one=one).eval(), torch.randn(2, 22, 1)

        def cut(model: nn.Module = model, x: Tensor = x) -> None:
            structure = pared.trace(model, x)
            pared.cut(model, structure, half(model, structure, (x,)))

        found["one module" if one else "four modules"] = alternating({"pared": cut}, 3)["pared"]
    return found


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    verdicts = []
    for network in PROBES:
        for tool in TOOLS:
            row = verdict(tool, network)
            verdicts.append(row)
            error = f"{row['error']:.1e}" if "error" in row else ""
            left = f"{row['left'] / row['parameters']:.2f}" if "left" in row else ""
            message = row.get("message", "")
            line = f"{network:30} {tool:17} {row['verdict']:12} {error:>8} {left:>5} {row['seconds']:8.3f} s  {message}"
            print(line.rstrip(), flush=True)
    times = {"ResNet-18": side_by_side(ResNet18, torch.randn(1, 3, 32, 32)), "LSTM tower": tower()}
    for name, rows in times.items():
        for what, row in rows.items():
            print(f"{name:12} {what:42} " + "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    facts = machine("torch", "torch-pruning")
    write({"machine": facts, "limit": LIMIT, "verdicts": verdicts, "seconds": times}, "surgery_peers")


if __name__ == "__main__":
    main()
