"""Tensors that are mostly zero, in safetensors: their other values, and where these stand.

A tensor `w` of n entries in row-major order, k of which are stored, lies in the file in the shortest of three forms:

    w                         itself, as safetensors keeps any tensor
    w:values, w:bits          k values; ceil(n / 8) bytes: bit j % 8, the lowest first, of byte j // 8 says whether
                              entry j is among them
    w:values, w:places        k values; their k places, rising, as uint16 up to n = 65,536, else as int32 (n < 2^31)

Entries that are not stored are +0. The header's metadata then hold under "pared" the JSON object
{"format": 1, "sparse": {name: shape}, "masks": {name: shape}}. A mask (which entries stay, by parameter) is the bits
`w:mask`; where there are none, it is the places of the stored values. A file without "pared" holds dense tensors only.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pared.types import Masks

NOTE, FORMAT = "pared", 1
ENTRY = 80
"""About how many bytes a tensor's line in the header takes, beside its name."""

Packed = tuple[dict[str, Tensor], dict[str, str] | None]
"""What safetensors writes: tensors, and the metadata of the header, if any."""


def pack(state: Mapping[str, Tensor], masks: Masks) -> Packed:
    """The tensors of a file, each in its shortest form, and its metadata; nothing but the tensors where none is sparse.

    What is stored is every entry that is not +0 and every entry that a mask keeps. Raises ValueError where names of
    the state would be taken for parts of others.
    """
    tensors: dict[str, Tensor] = {}
    sparse: dict[str, list[int]] = {}
    for name, tensor in state.items():
        mask, stored = masks.get(name), _stored(tensor, masks.get(name))
        parts = {} if stored is None else _parts(name, tensor, stored, mask)
        if parts:
            sparse[name] = list(tensor.shape)
        found = parts or {name: tensor.clone(memory_format=torch.contiguous_format)}
        if mask is not None and not (parts and stored is not None and torch.equal(stored, mask.to(stored.device))):
            found[f"{name}:mask"] = _bits(mask)
        tensors |= found
    tensors |= {f"{name}:mask": _bits(mask) for name, mask in masks.items() if name not in state}
    if not sparse and not masks:
        return tensors, None
    if taken := sorted(state.keys() & {f"{name}:{part}" for name in (*state, *masks) for part in PARTS}):
        raise ValueError(f"a tensor is called {taken[0]!r}, which would be read as a part of another; rename it")
    note = {"format": FORMAT, "sparse": sparse, "masks": {name: list(mask.shape) for name, mask in masks.items()}}
    return tensors, {NOTE: json.dumps(note)}


PARTS = "values", "bits", "places", "mask"


def _stored(tensor: Tensor, mask: Tensor | None) -> Tensor | None:
    """Which entries must be stored; None for a tensor that is always dense."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return None
    stored = (tensor != 0) | tensor.signbit()
    return stored if mask is None else stored | mask.to(tensor.device)


def _parts(name: str, tensor: Tensor, stored: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """The shorter sparse form; nothing where the dense one is as short."""
    n, k, size = tensor.numel(), int(stored.sum()), tensor.element_size()
    bits, place = math.ceil(n / 8), 2 if n <= 2**16 else 4
    own_mask = 0 if mask is None or torch.equal(stored, mask.to(stored.device)) else bits
    dense = n * size + (0 if mask is None else bits)
    use_places = k * place < bits and n < 2**31
    if k * size + min(bits, k * place if use_places else bits) + own_mask + 2 * (len(name) + ENTRY) >= dense:
        return {}
    where = {f"{name}:places": _places(stored)} if use_places else {f"{name}:bits": _bits(stored)}
    return {f"{name}:values": tensor[stored].clone(), **where}


def _bits(stored: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(stored.cpu().numpy().reshape(-1), bitorder="little"))


def _places(stored: Tensor) -> Tensor:
    found = np.flatnonzero(stored.cpu().numpy())
    return torch.from_numpy(found.astype(np.uint16 if stored.numel() <= 2**16 else np.int32))


def unpack(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None, shapes: Mapping[str, Sequence[int]]
) -> tuple[dict[str, Tensor], Masks]:
    """The state and the masks of a file, for tensors of these shapes.

    Raises ValueError for parts that do not fit each other, or the shapes.
    """
    if not metadata or NOTE not in metadata:
        return dict(tensors), {}
    note = json.loads(metadata[NOTE])
    if not isinstance(note, dict) or note.get("format") != FORMAT:
        raise ValueError("it is written in a form that this version of pared does not know; use a newer one")
    left, state, stored, masks = dict(tensors), dict[str, Tensor](), dict[str, Tensor](), Masks()
    for name, shape in _fitting(note, "sparse", shapes).items():
        values = _taken(left, f"{name}:values")
        stored[name] = _where(left, name, shape)
        if values.dim() != 1 or len(values) != int(stored[name].sum()):
            raise ValueError(f"{name!r} has {tuple(values.shape)} values for {int(stored[name].sum())} places")
        state[name] = values.new_zeros(shape).masked_scatter_(stored[name], values)
    for name, shape in _fitting(note, "masks", shapes).items():
        own = left.pop(f"{name}:mask", None)
        masks[name] = _unpacked(own, name, shape) if own is not None else _taken(stored, name, keep=True)
    return state | left, masks


def _fitting(note: Mapping[str, Any], what: str, shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the sparse tensors or the masks, after checking that the network has them."""
    found = {name: tuple(shape) for name, shape in note[what].items()}
    for name, shape in found.items():
        if name not in shapes or tuple(shapes[name]) != shape:
            has = f"one shaped {tuple(shapes[name])}" if name in shapes else "none of this name"
            raise ValueError(f"it holds {name!r} shaped {shape}, and the network has {has}")
    return found


def _taken(tensors: dict[str, Tensor], name: str, keep: bool = False) -> Tensor:
    if name not in tensors:
        raise ValueError(f"{name!r} is missing")
    return tensors[name] if keep else tensors.pop(name)


def _where(left: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    """Booleans of the shape: which entries are stored."""
    bits = left.pop(f"{name}:bits", None)
    if bits is not None:
        return _unpacked(bits, name, shape)
    places, n = _taken(left, f"{name}:places"), math.prod(shape)
    found = places.to(torch.int64) if places.dim() == 1 and not places.is_floating_point() else torch.tensor([-1])
    if len(found) and not (int(found[0]) >= 0 and int(found[-1]) < n and bool((found.diff() > 0).all())):
        raise ValueError(f"the places of {name!r} do not rise from 0 to {n - 1}")
    return torch.zeros(n, dtype=torch.bool).index_fill_(0, found, True).reshape(shape)


def _unpacked(bits: Tensor, name: str, shape: tuple[int, ...]) -> Tensor:
    n = math.prod(shape)
    if bits.dtype != torch.uint8 or bits.shape != (math.ceil(n / 8),):
        raise ValueError(f"the bits of {name!r} are {tuple(bits.shape)} {bits.dtype}, not {math.ceil(n / 8)} bytes")
    found = np.unpackbits(bits.numpy(), count=n, bitorder="little")
    return torch.from_numpy(found.astype(bool)).reshape(shape)
