"""What one module inside a network gives while the network runs, gradients included."""

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
