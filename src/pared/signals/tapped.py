"""What modules inside a network give and read while the network runs, gradients included."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from pared.signals.private import tensor_of


def output_of(model: nn.Module, path: str, x: Tensor) -> Tensor:
    """The output of the module at `path` when the model runs on x; of several tensors the first, of calls the last.

    Raises: ValueError where there is no such module, and where it does not take part.
    """
    modules = dict(model.named_modules())
    if path not in modules:
        raise ValueError(f"there is no module {path!r}; there are {', '.join(name for name in modules if name)}")
    seen: list[Tensor] = []
    handle = modules[path].register_forward_hook(lambda _, __, out: seen.append(tensor_of(out)))
    try:
        model(x)
    finally:
        handle.remove()
    if not seen:
        raise ValueError(f"the module {path!r} is not called when the model runs; name another one")
    return seen[-1]


def inputs_of(
    model: nn.Module, paths: Sequence[str], x: Tensor, added: Mapping[str, Tensor] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The model's output on x, and what each module at `paths` is first given; it then reads that plus its `added`.

    Raises: ValueError where there is no such module, where it does not take part or does so several times, and where
    it is given no tensor.
    """
    modules, more = dict(model.named_modules()), added or {}
    if missing := [path for path in paths if path not in modules]:
        raise ValueError(f"there is no module {missing[0]!r}; there are {', '.join(name for name in modules if name)}")
    seen: dict[str, Tensor] = {}

    def reading(path: str, given: tuple[Any, ...]) -> tuple[Any, ...]:
        if path in seen or not given or not isinstance(given[0], Tensor):
            why = "called several times" if path in seen else "given no tensor"
            raise ValueError(f"the module {path!r} is {why} when the model runs; name another one")
        seen[path] = given[0]
        return (given[0] + more[path], *given[1:]) if path in more else given

    handles = [
        modules[path].register_forward_pre_hook(lambda _, given, path=path: reading(path, given)) for path in paths
    ]
    try:
        out = tensor_of(model(x))
    finally:
        for handle in handles:
            handle.remove()
    if idle := [path for path in paths if path not in seen]:
        raise ValueError(f"the module {idle[0]!r} is not called when the model runs; name another one")
    return out, seen
