"""Recurrent modules written out step by step, with the parameters, arguments and results of PyTorch's own."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.rnn import PackedSequence

States = tuple[Tensor, Tensor]
"""Hidden state and memory of one layer and direction; the memory means something in an LSTM only."""
GATES = {"LSTM": 4, "GRU": 3}
"""How many rows a unit owns in each weight, where it is not one."""


def step(kind: str, entering: Tensor, fed_back: Tensor, state: Tensor, memory: Tensor) -> States:
    """One step from what comes in and what comes back, both already multiplied by their weights."""
    if kind == "LSTM":
        i, f, g, o = (entering + fed_back).chunk(4, dim=-1)
        memory = torch.sigmoid(f) * memory + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(memory), memory
    if kind == "GRU":
        (r, z, n), (hr, hz, hn) = entering.chunk(3, dim=-1), fed_back.chunk(3, dim=-1)
        update = torch.sigmoid(z + hz)
        candidate = torch.tanh(n + torch.sigmoid(r + hr) * hn)
        return (1 - update) * candidate + update * state, memory
    return (torch.relu if kind == "RNN_RELU" else torch.tanh)(entering + fed_back), memory


class Unrolled(nn.Module):
    """Values run as one row a sample and step, step after step; a packed sequence is that already."""

    def __init__(self, module: nn.RNNBase) -> None:
        super().__init__()
        for name, parameter in module.named_parameters():
            self.register_parameter(name, parameter)
        for name, buffer in module.named_buffers():
            self.register_buffer(name, buffer)
        self.kind, self.layers, self.bias = module.mode, module.num_layers, module.bias
        self.batch_first, self.projected = module.batch_first, module.proj_size > 0
        self.directions = 2 if module.bidirectional else 1
        self.dropout = 0.0

    def forward(self, x: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        if isinstance(x, PackedSequence):
            return self._packed(x, hx)
        single = x.dim() == 2
        steps = x.unsqueeze(1) if single else x.transpose(0, 1) if self.batch_first else x
        if single and hx is not None:
            hx = tuple(part.unsqueeze(1) for part in hx) if self.kind == "LSTM" else hx.unsqueeze(1)
        length, samples = steps.shape[:2]
        rows, finals = self._run(steps.flatten(0, 1), [samples] * length, hx)
        out = rows.reshape(length, samples, rows.shape[-1])
        if single:
            return out.squeeze(1), self._final([part.squeeze(1) for part in finals])
        return out.transpose(0, 1) if self.batch_first else out, self._final(finals)

    def _packed(self, x: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        """A packed sequence is sorted by length; states come and go in the order of the samples."""
        if hx is not None and x.sorted_indices is not None:
            parts = hx if self.kind == "LSTM" else (hx,)
            hx = tuple(part.index_select(1, x.sorted_indices) for part in parts)
            hx = hx if self.kind == "LSTM" else hx[0]
        rows, finals = self._run(x.data, x.batch_sizes.tolist(), hx)
        if x.unsorted_indices is not None:
            finals = [part.index_select(1, x.unsorted_indices) for part in finals]
        return PackedSequence(rows, x.batch_sizes, x.sorted_indices, x.unsorted_indices), self._final(finals)

    def _final(self, finals: Sequence[Tensor]) -> Any:
        return tuple(finals) if self.kind == "LSTM" else finals[0]

    def _run(self, rows: Tensor, sizes: Sequence[int], hx: Any) -> tuple[Tensor, list[Tensor]]:
        """Rows (sum of sizes, values), of which the first `sizes[0]` belong to the first step -> rows, final states."""
        ends: list[States] = []
        for layer in range(self.layers):
            made = []
            for direction in range(self.directions):
                suffix = f"l{layer}" + ("_reverse" if direction else "")
                start = self._start(rows, sizes[0], suffix) if hx is None else self._given(hx, len(ends))
                states, end = self._direction(rows, sizes, start, suffix)
                made.append(states)
                ends.append(end)
            rows = torch.cat(made, dim=-1) if len(made) > 1 else made[0]
            if self.dropout and self.training and layer < self.layers - 1:
                rows = torch.dropout(rows, self.dropout, True)
        return rows, [torch.stack(parts) for parts in zip(*ends, strict=True)]

    def _start(self, rows: Tensor, samples: int, suffix: str) -> States:
        """States and memories of zero, of the widths that the weights have."""
        cells, width = self.recurrent_shape(suffix)
        return rows.new_zeros(samples, width), rows.new_zeros(samples, cells // GATES.get(self.kind, 1))

    def _given(self, hx: Any, index: int) -> States:
        return (hx[0][index], hx[1][index]) if self.kind == "LSTM" else (hx[index], hx[index])

    def _direction(self, rows: Tensor, sizes: Sequence[int], start: States, suffix: str) -> tuple[Tensor, States]:
        entering = self.multiplied("ih", suffix, rows).split_with_sizes(list(sizes))
        (state, memory), states = start, [rows] * len(sizes)
        order = range(len(sizes))
        for t in reversed(order) if suffix.endswith("reverse") else order:
            live = sizes[t]
            fed_back = self.multiplied("hh", suffix, state[:live])
            new, kept = step(self.kind, entering[t], fed_back, state[:live], memory[:live])
            new = linear(new, getattr(self, f"weight_hr_{suffix}")) if self.projected else new
            states[t] = new
            state = new if live == len(state) else torch.cat([new, state[live:]])
            memory = kept if live == len(memory) else torch.cat([kept, memory[live:]])
        return torch.cat(states), (state, memory)

    def multiplied(self, kind: str, suffix: str, x: Tensor) -> Tensor:
        """W x + b with the input weight ("ih") or the recurrent one ("hh") of a layer and direction."""
        return linear(x, getattr(self, f"weight_{kind}_{suffix}"), self.bias_of(kind, suffix))

    def bias_of(self, kind: str, suffix: str) -> Tensor | None:
        """The bias that goes with a weight."""
        return getattr(self, f"bias_{kind}_{suffix}") if self.bias else None

    def recurrent_shape(self, suffix: str) -> tuple[int, int]:
        """Rows and columns of the recurrent weight."""
        rows, columns = getattr(self, f"weight_hh_{suffix}").shape
        return rows, columns
