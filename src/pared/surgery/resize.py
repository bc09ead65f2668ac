"""After a cut: a layer's size attributes follow its parameters; a layer that cannot hold its new sizes is exchanged."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from pared.models.attention import Attention
from pared.surgery.slices import Slice, StructureError


class Loss(NamedTuple):
    """One slice of a group, and how many of the group's units are gone."""

    slice: Slice
    width: int
    gone: int


def resized(module: nn.Module, losses: Sequence[Loss]) -> nn.Module:
    """The module with its sizes set from its parameters, or what takes its place."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.RNNBase):
        _resize_recurrent(module)
    elif isinstance(module, nn.RNNCellBase):
        module.hidden_size, module.input_size = module.weight_hh.shape[1], module.weight_ih.shape[1]
    elif isinstance(module, nn.Embedding):
        module.embedding_dim = module.weight.shape[1]
    elif isinstance(module, nn.modules.conv._ConvNd):
        _resize_convolution(module)
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        own = module.weight if module.weight is not None else module.running_mean
        module.num_features = module.num_features if own is None else len(own)
    elif isinstance(module, nn.GroupNorm):
        each = module.num_channels // module.num_groups
        module.num_channels = len(module.weight)
        module.num_groups = 1 if module.num_groups == 1 else module.num_channels // each
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)
    elif isinstance(module, (nn.MultiheadAttention, Attention)):
        return _resized_attention(module, losses)
    return module


def _resize_recurrent(module: nn.RNNBase) -> None:
    own = [(name, p.shape) for name, p in module.named_parameters()]
    gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
    hidden = {shape[0] // gates for name, shape in own if name.startswith("weight_hh")}
    states = {shape[1] for name, shape in own if name.startswith("weight_hh")}
    for widths in (hidden, states):
        if len(widths) > 1:
            raise StructureError(
                f"one recurrent module gives its layers one width, the plan leaves {sorted(widths)}; "
                "keep equal numbers or split it into modules of its own with pared.split_layers"
            )
    module.hidden_size = hidden.pop()
    module.proj_size = states.pop() if module.proj_size else 0
    if module.proj_size == module.hidden_size:
        raise StructureError(
            f"PyTorch cannot run an LSTM whose projection is as wide as its cells, the plan leaves {module.proj_size} "
            "of both; keep one unit more or less of either"
        )
    module.input_size = module.get_parameter("weight_ih_l0").shape[1]


def _resize_convolution(module: nn.modules.conv._ConvNd) -> None:
    shape = module.weight.shape
    depthwise = module.groups == module.in_channels
    if depthwise and module.groups > 1:
        many = module.out_channels // module.groups
        module.groups = shape[0] if module.transposed else shape[0] // many
    first, second = shape[0], shape[1] * module.groups
    module.out_channels, module.in_channels = (second, first) if module.transposed else (first, second)


def _resized_attention(module: nn.MultiheadAttention | Attention, losses: Sequence[Loss]) -> nn.Module:
    if isinstance(module, Attention):
        heads, keys, values, scale = module.num_heads, module.key_width, module.value_width, module.scale
    else:
        heads, keys, values, scale = module.num_heads, module.head_dim, module.head_dim, module.head_dim**-0.5
    gone = {"heads": 0, "keys": 0, "values": 0}
    for s, width, lost in losses:
        if s.axis == 1 and s.parameter.endswith("out_proj.weight"):
            gone["heads" if (width, s.inner) == (heads, values) else "values"] = lost
        elif s.axis == 0 and s.role == "out":  # of the projections only the queries are read
            gone["keys"] = lost
    sizes = heads - gone["heads"], keys - gone["keys"], values - gone["values"]
    if isinstance(module, Attention):
        module.num_heads, module.key_width, module.value_width = sizes
        return module
    return Attention(module, *sizes, scale=scale)
