"""What each kind of layer and operation does to the axes that carry units: one function a kind, and their tables.

`MODULES` holds the layers that a trace does not look into; `OPERATIONS` the functions, methods and ATen operations, by
the name that PyTorch gives them in all three forms. A rule takes the atoms, the result and the traced arguments, and
returns the result's layout.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pared.models.attention import Attention
from pared.models.factored import Factored
from pared.surgery.rules import attention, dense, elementwise, norms, parts, recurrent, shape, spatial

Rule = Callable[..., Any]

_THROUGH_ZERO_MODULES: tuple[type[nn.Module], ...] = (
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.ReLU,
    nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Softsign, nn.Hardswish,
    nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.RReLU,
)  # fmt: skip
_POINTWISE_MODULES: tuple[type[nn.Module], ...] = (
    nn.Sigmoid, nn.Softplus, nn.Hardtanh, nn.Hardsigmoid, nn.LogSigmoid, nn.Threshold,
)  # fmt: skip
_SPATIAL_MODULES: tuple[type[nn.Module], ...] = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d,
    nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReplicationPad1d, nn.ReplicationPad2d,
)  # fmt: skip

MODULES: dict[type[nn.Module], Rule] = {
    nn.Linear: dense.linear_module,
    nn.Embedding: dense.embedding_module,
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), dense.convolution_module),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), dense.convolution_module),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm), norms.channels_module),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), norms.channels_module),
    nn.GroupNorm: norms.groups_module,
    nn.LayerNorm: norms.last_axes_module,
    nn.RMSNorm: norms.last_axes_module,
    **dict.fromkeys((nn.LSTM, nn.GRU, nn.RNN), recurrent.recurrent),
    Factored: recurrent.factored,
    **dict.fromkeys((nn.LSTMCell, nn.GRUCell, nn.RNNCell), recurrent.cell),
    nn.MultiheadAttention: attention.multihead,
    Attention: attention.multihead,
    nn.TransformerEncoderLayer: attention.encoder_layer,
    nn.TransformerDecoderLayer: attention.decoder_layer,
    nn.TransformerEncoder: attention.encoder,
    nn.TransformerDecoder: attention.decoder,
    nn.PReLU: elementwise.prelu_module,
    nn.GLU: elementwise.glu_module,
    **dict.fromkeys((nn.Softmax, nn.LogSoftmax, nn.Softmin), elementwise.softmax_module),
    **dict.fromkeys(_THROUGH_ZERO_MODULES, elementwise.module_through_zero),
    **dict.fromkeys(_POINTWISE_MODULES, elementwise.module_pointwise),
    **dict.fromkeys(_SPATIAL_MODULES, spatial.spatial_module),
    nn.Flatten: shape.flatten_module,
    nn.Unflatten: shape.unflatten_module,
    nn.PixelShuffle: spatial.pixel_shuffle_module,
}

_THROUGH_ZERO = (
    "relu relu6 leaky_relu elu selu celu gelu silu mish tanh softsign hardswish dropout dropout1d dropout2d dropout3d "
    "alpha_dropout feature_dropout neg abs sin tan atan asin sinh asinh erf expm1 log1p sqrt square sign clone "
    "contiguous detach float double half bfloat16 to type type_as round floor ceil trunc nan_to_num _to_copy alias "
    "lift_fresh_copy positive detach_ native_dropout rrelu"
)
_POINTWISE = (
    "sigmoid softplus exp exp2 cos cosh hardtanh hardsigmoid logsigmoid clamp clip clamp_min clamp_max log log2 log10 "
    "reciprocal rsqrt logical_not isnan isfinite pow threshold masked_fill fill bool int long"
)
_MET = (
    "maximum minimum where eq ne lt le gt ge fmod remainder atan2 logical_and logical_or bitwise_and bitwise_or lerp "
    "floordiv floor_divide"
)
_REDUCED = "mean amax amin max min std var norm logsumexp argmax argmin prod any all median var_mean std_mean"
_PERMUTED = "permute transpose t movedim moveaxis swapaxes swapdims adjoint"
_SPATIAL = {n: f"max_pool{n}d avg_pool{n}d adaptive_avg_pool{n}d adaptive_max_pool{n}d" for n in (1, 2, 3)}
_CREATED = "zeros ones full empty new_zeros new_ones new_full new_empty randn rand arange tensor"
_ALIKE = "zeros_like ones_like full_like empty_like randn_like rand_like"
_NOTHING = "dim numel device dtype is_cuda requires_grad __len__ len ndim is_floating_point"

OPERATIONS: dict[str, Rule] = {
    **dict.fromkeys(_THROUGH_ZERO.split(), elementwise.through_zero),
    **dict.fromkeys(_POINTWISE.split(), elementwise.pointwise),
    **dict.fromkeys(_MET.split(), elementwise.met),
    **dict.fromkeys(_REDUCED.split(), elementwise.reduced),
    **dict.fromkeys(("add", "sub", "subtract", "rsub"), elementwise.added),
    **dict.fromkeys(("mul", "multiply"), elementwise.multiplied),
    **dict.fromkeys(("div", "truediv", "true_divide", "divide"), elementwise.divided),
    "sum": elementwise.summed,
    **dict.fromkeys(("softmax", "log_softmax", "_softmax", "softmin"), elementwise.softmax),
    "normalize": elementwise.normalised,
    "glu": elementwise.glu,
    "prelu": elementwise.prelu,
    **dict.fromkeys(_ALIKE.split(), elementwise.random_like),
    **dict.fromkeys(_NOTHING.split(), elementwise.nothing),
    "linear": dense.linear,
    **dict.fromkeys(("matmul", "bmm", "mm", "mv", "dot"), dense.matmul),
    **dict.fromkeys(("addmm", "baddbmm"), dense.added_product),
    "einsum": dense.einsum,
    "scaled_dot_product_attention": dense.attention,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), dense.convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), dense.transposed_convolution),
    **dict.fromkeys(("batch_norm",), norms.channels),
    **dict.fromkeys(("layer_norm", "rms_norm"), norms.last_axes_function),
    **dict.fromkeys(("view", "reshape", "_unsafe_view"), shape.view),
    **dict.fromkeys(("view_as", "reshape_as"), shape.view_like),
    "flatten": shape.flatten,
    "unflatten": shape.unflatten,
    **{name: shape.permuted(getattr(torch.Tensor, name)) for name in _PERMUTED.split()},
    "T": shape.turned,
    "mT": shape.permuted(lambda x: x.transpose(-2, -1)),
    "squeeze": shape.squeeze,
    "unsqueeze": shape.unsqueeze,
    "expand": shape.expand,
    "expand_as": shape.expand_like,
    **dict.fromkeys(("repeat", "tile"), shape.repeat),
    "repeat_interleave": shape.repeat_interleave,
    **dict.fromkeys(("cat", "concat", "concatenate"), parts.concatenated),
    "stack": parts.stacked,
    **dict.fromkeys(("chunk", "tensor_split"), parts.chunked),
    **dict.fromkeys(("split", "split_with_sizes"), parts.divided_up),
    "unbind": parts.unbound,
    "select": parts.selected,
    "index_select": parts.picked,
    **dict.fromkeys(("slice", "narrow"), parts.narrowed),
    "gather": parts.gathered,
    "getitem": parts.indexed,
    "pad": parts.padded,
    **{name: spatial.spatial(n) for n, names in _SPATIAL.items() for name in names.split()},
    **dict.fromkeys(("interpolate", "upsample"), spatial.interpolated),
    "pixel_shuffle": spatial.pixel_shuffled,
    **dict.fromkeys(("flip", "roll"), parts.flipped),
    **dict.fromkeys(("cumsum", "cumprod", "sort", "argsort", "cummax"), parts.along),
    **dict.fromkeys(("size", "shape", "sym_size"), shape.size),
    **dict.fromkeys(_CREATED.split(), shape.created),
    "embedding": dense.embedding,
    "pack_padded_sequence": recurrent.packed,
    "pad_packed_sequence": recurrent.padded_again,
}
