"""Training of one small recurrent forecaster by a compiled kernel: the same mathematics as `fit`, an order faster."""

import copy
import functools
import importlib
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from pared.models.recurrent import CELLS, Forecaster
from pared.training.fit import Fit, TrainConfig, TrainingData, check_data, finite, optimiser_for, sample_orders
from pared.training.fit import fit as fit_by_loop
from pared.training.kernel_layout import ADAM, LANES, Floats, Layout, layout
from pared.types import Loss

MOST_WEIGHTS = 2**16  # beyond, the loop's matrix products fill the processor, and may use several cores


@functools.cache
def available() -> bool:
    """Whether numba can be imported here."""
    try:
        import numba  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


@functools.cache
def compiled(kind: str) -> ModuleType:
    """The compiled functions for networks of "lstm", "gru" or "rnn" layers.

    The first call on a machine compiles them (10 to 20 s a kind), later ones read numba's cache.
    """
    return importlib.import_module(f"pared.training.kernel_{kind}")


def kind_of(model: nn.Module) -> str:
    """The kind of a supported model's recurrent layers, as `compiled` names it."""
    assert isinstance(model, Forecaster)
    return next(kind for kind, cell in CELLS.items() if type(model.recurrent[0]) is cell)


def supports(model: nn.Module, config: TrainConfig, loss: Loss = mse_loss) -> bool:
    """Whether the kernel trains this member, and faster than the plain loop.

    It takes a `Forecaster` whose layers are all LSTM, all GRU or all RNN, with biases, float32 on the CPU, without
    hooks and with all of its weights trained, of at most 65,536 weights; mean squared error; Adam or AdamW.
    """
    weights = list(model.parameters())
    return (
        loss is mse_loss
        and config.optimiser in ("adam", "adamw")
        and all(w.requires_grad for w in weights)
        and runs(model)
    )


def runs(model: nn.Module) -> bool:
    """Whether the kernel computes what this model does: a part of what `supports` asks, whatever it is trained with."""
    if type(model) is not Forecaster:
        return False
    weights = list(model.parameters())
    return (
        all(_is_plain(layer) for layer in model.recurrent)
        and len({type(layer) for layer in model.recurrent}) == 1
        and all(type(layer) is nn.Linear and layer.bias is not None for layer in model.head)
        and len(weights) == 4 * len(model.recurrent) + 2 * len(model.head)
        and all(w.dtype == torch.float32 and w.device.type == "cpu" for w in weights)
        and sum(w.numel() for w in weights) <= MOST_WEIGHTS
        and not any(_has_hooks(module) for module in model.modules())
        and available()
    )


def _is_plain(layer: nn.Module) -> bool:
    return (
        isinstance(layer, nn.RNNBase)
        and type(layer) in CELLS.values()
        and layer.num_layers == 1
        and layer.bias
        and layer.batch_first
        and not layer.bidirectional
        and layer.proj_size == 0
    )


def _has_hooks(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or "forward" in vars(module)


def reads(model: nn.Module, split: TrainingData) -> bool:
    """Whether a split's data are shaped as a supported model takes and gives them, in float32 on the CPU."""
    assert isinstance(model, Forecaster)
    outputs = model.head[-1].out_features
    window = split.train.x.shape[1:2]
    return all(
        takes(model, x) and x.shape[1:2] == window and y.shape == (len(x), outputs) and _is_float(y)
        for x, y in (split.train, split.validation)
        if len(x)
    )


def takes(model: nn.Module, x: Tensor) -> bool:
    """Whether x is shaped as a supported model takes it, (samples, window, inputs), in float32 on the CPU."""
    assert isinstance(model, Forecaster)
    return x.ndim == 3 and x.shape[1] > 0 and x.shape[2] == model.recurrent[0].input_size and _is_float(x)


def _is_float(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu"


def forward(model: nn.Module, window: int) -> Callable[[Tensor], Tensor]:
    """The model, one that the kernel `runs`, as a function of x (samples, window, inputs), with its weights of now.

    Equal to `model(x)` to float32 rounding, without gradients. One thread at a time may call it.
    """
    assert isinstance(model, Forecaster)
    places = layout(model, window, batch_size=1)
    weights, memory = _floats(places.weights), _memory(places)
    for parameter, place in zip(model.parameters(), places.places, strict=True):
        weights[place] = _flat(parameter)
    predict, outputs = compiled(kind_of(model)).predict, int(places.network[2]["outputs"][0])

    def evaluated(x: Tensor) -> Tensor:
        output = np.empty((len(x), outputs), np.float32)
        predict(_rows(x), np.arange(len(x)), places.network, weights, memory, output)
        return torch.from_numpy(output)

    return evaluated


def fit(
    model: nn.Module,
    split: TrainingData,
    config: TrainConfig,
    resume: Fit | None = None,
    stop: threading.Event | None = None,
) -> Fit:
    """`pared.training.fit` with mean squared error, for a member that `supports` accepts.

    Weights, curves and optimiser state agree with the plain loop to float32 rounding, and either resumes from the
    other's fit. `stop`, once set, ends training after the epoch under way.

    Returns a `Fit`. Raises ValueError where the data do not suit the model or the training set is empty, and
    CancelledError when stopped.
    """
    check_data(split, config)
    source = resume.model if resume else model
    if not reads(source, split):
        raise ValueError(
            f"the kernel cannot read x {tuple(split.train.x.shape)} and y {tuple(split.train.y.shape)} for this model; "
            "give float32 x (samples, window, inputs) and y (samples, outputs) on the CPU"
        )
    started = time.perf_counter()
    trained = cast(Forecaster, copy.deepcopy(source))
    optimiser = optimiser_for(trained, config, resume)
    if not _is_plain_adam(optimiser):
        return fit_by_loop(model, split, config, mse_loss, resume)
    member = _packed(optimiser, layout(trained, split.train.x.shape[1], config.batch_size), config)
    curves = _train(member, compiled(kind_of(trained)), split, config, stop)
    _unpack(member, optimiser)
    return Fit(
        model=trained,
        optimiser_state=optimiser.state_dict(),
        curves={name: tuple(values) for name, values in curves.items()},
        seed=config.seed,
        seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True)
class _Member:
    """One network as the compiled functions see it: `state` is (weights, gradient, first moment, second moment)."""

    layout: Layout
    state: tuple[Floats, Floats, Floats, Floats]
    adam: Any
    memory: Floats


def _is_plain_adam(optimiser: torch.optim.Optimizer) -> bool:
    """Whether the state, which may come from elsewhere, is Adam's at one common step."""
    (group, *others), states = optimiser.param_groups, list(optimiser.state.values())
    return (
        not others
        and not group["amsgrad"]
        and not group["maximize"]
        and len(states) in (0, len(group["params"]))
        and len({float(state["step"]) for state in states}) <= 1
    )


def _packed(optimiser: torch.optim.Optimizer, places: Layout, config: TrainConfig) -> _Member:
    group = optimiser.param_groups[0]
    state = tuple(_floats(places.weights) for _ in range(4))
    weights, _, first, second = state
    adam = np.zeros(1, ADAM)
    for parameter, place in zip(group["params"], places.places, strict=True):
        weights[place] = _flat(parameter)
        if moments := optimiser.state.get(parameter):
            first[place], second[place] = _flat(moments["exp_avg"]), _flat(moments["exp_avg_sq"])
            adam["step"] = float(moments["step"])
    adam["beta1"], adam["beta2"] = group["betas"]
    adam["eps"], adam["decay"], adam["clip"] = group["eps"], group["weight_decay"], config.clip or 0.0
    adam["decoupled"] = group.get("decoupled_weight_decay", isinstance(optimiser, torch.optim.AdamW))
    return _Member(places, cast(Any, state), adam, _memory(places))


def _memory(places: Layout) -> Floats:
    memory, plan = _floats(places.memory), places.network[2][0]
    memory.reshape(plan["tiles"], plan["tile_size"])[:, plan["ones"] : plan["ones"] + LANES] = 1.0
    return memory


def _train(
    member: _Member, kernel: ModuleType, split: TrainingData, config: TrainConfig, stop: threading.Event | None
) -> dict[str, list[float]]:
    """Trains the member in place, epoch by epoch; returns the curves."""
    train = _rows(split.train.x), _rows(split.train.y)
    x, y = _rows(split.validation.x), split.validation.y.detach()
    everything, outputs = np.arange(len(x)), np.empty((len(x), train[1].shape[1]), np.float32)
    network = member.layout.network
    curves: dict[str, list[float]] = {"train": [], "validation": []}
    best, best_member, best_epoch = math.inf, None, 0
    for epoch, order in enumerate(sample_orders(len(split.train.x), config)):
        if stop is not None and stop.is_set():
            raise CancelledError
        member.adam["lr"] = config.lr * config.schedule(epoch / config.epochs)
        loss = kernel.train_epoch(
            train, order.numpy(), config.batch_size, network, member.state, member.adam, member.memory
        )
        curves["train"].append(loss)
        if len(everything):
            kernel.predict(x, everything, network, member.state[0], member.memory, outputs)
            curves["validation"].append(mse_loss(torch.from_numpy(outputs), y).item())
        if not finite(curves):
            break
        if config.patience is not None:
            if curves["validation"][-1] < best:
                best, best_epoch = curves["validation"][-1], epoch
                best_member = copy.deepcopy((member.state, member.adam))
            elif epoch - best_epoch >= config.patience:
                break
    if best_member is not None:
        for kept, array in zip((*best_member[0], best_member[1]), (*member.state, member.adam), strict=True):
            array[:] = kept
    return curves


@torch.no_grad()
def _unpack(member: _Member, optimiser: torch.optim.Optimizer) -> None:
    """Writes weights, moments and steps back to the parameters and the optimiser's state."""
    weights, _, first, second = member.state
    group = optimiser.param_groups[0]
    group["lr"] = float(member.adam["lr"][0])
    for parameter, place in zip(group["params"], member.layout.places, strict=True):
        parameter.copy_(torch.from_numpy(weights[place]).view_as(parameter))
        optimiser.state[parameter] = {
            "step": torch.tensor(float(member.adam["step"][0])),
            "exp_avg": torch.from_numpy(first[place]).view_as(parameter),
            "exp_avg_sq": torch.from_numpy(second[place]).view_as(parameter),
        }


def _rows(tensor: Tensor) -> Floats:
    """A row a sample."""
    return tensor.detach().flatten(1).contiguous().numpy()


def _flat(tensor: Tensor) -> Floats:
    return cast(Floats, tensor.detach().reshape(-1).numpy())


def _floats(count: int) -> Floats:
    """Zeros that begin on a cache line."""
    memory = np.zeros(count + 16, np.float32)
    start = -memory.ctypes.data % 64 // 4
    return memory[start : start + count]
