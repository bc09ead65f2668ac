"""Tasks at rising depths of one network, each of which hears what the tasks below it decided."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class ManyTask(nn.Module):
    """A layer and a head for each task, simple tasks first; every layer hears x, the layer below and all labels below.

        h_n = layer_n([x, h_(n-1), y_1, .., y_(n-1)]),    y_k = sum over classes j of p_k(j) l_k(j)

    p_k = softmax(head_k(h_k)), l_k(j) a learned vector of `width` values, the label embedding: differentiable, so that
    an upper task also trains the lower ones. x (..., features) -> logits (..., classes) of a task, the last by default.

    Layer n maps (..., features + width of h_(n-1) + (n - 1) `width`) to (..., width of h_n); of a tuple, as an LSTM
    gives, the first tensor counts. Embeddings are drawn from N(0, 1) by `seed`. Raises ValueError unless layers and
    heads name the same tasks in the same order, at least one.
    Source: Hashimoto et al., A Joint Many-Task Model (2017), section 2.
    """

    def __init__(
        self, layers: Mapping[str, nn.Module], heads: Mapping[str, nn.Linear], width: int = 8, seed: int = 0
    ) -> None:
        super().__init__()
        if not layers or list(layers) != list(heads):
            raise ValueError(f"layers and heads must name the same tasks in order, got {[*layers]} and {[*heads]}")
        self.layers, self.heads = nn.ModuleDict(layers), nn.ModuleDict(heads)
        generator = torch.Generator().manual_seed(seed)
        drawn = {task: torch.randn(head.out_features, width, generator=generator) for task, head in heads.items()}
        lower = list(heads)[:-1]  # nobody hears the last one
        self.labels = nn.ParameterDict({task: nn.Parameter(drawn[task].to(heads[task].weight)) for task in lower})

    @property
    def tasks(self) -> tuple[str, ...]:
        """Their names, the simplest first."""
        return tuple(self.layers)

    def forward(self, x: Tensor, task: str | None = None) -> Tensor:
        *lower, last = self.tasks if task is None else self.tasks[: self._place(task) + 1]
        heard, labels = [x], list[Tensor]()
        for name in lower:
            h = self._level(name, heard, labels)
            heard = [x, h]
            labels.append(self.heads[name](h).softmax(-1) @ self.labels[name])
        out: Tensor = self.heads[last](self._level(last, heard, labels))
        return out

    def at(self, task: str) -> "AtTask":
        """The network of one task, to be trained by `fit` or `fit_anchored`; its `whole` is then the trained one."""
        return AtTask(self, task)

    def below(self, task: str) -> list[str]:
        """Patterns of what the tasks below have learnt, as `fit_anchored(model.at(task), ...)` holds it in place."""
        lower = self.tasks[: self._place(task)]
        return [f"whole.{part}.{name}{end}" for name in lower for part, end in PARTS.items()]

    def _level(self, name: str, heard: list[Tensor], labels: list[Tensor]) -> Tensor:
        out: Tensor | tuple[Tensor, Tensor] = self.layers[name](torch.cat([*heard, *labels], -1))
        return out[0] if isinstance(out, tuple) else out

    def _place(self, task: str) -> int:
        if task not in self.tasks:
            raise ValueError(f"there is no task {task!r}; there are {', '.join(self.tasks)}")
        return self.tasks.index(task)


PARTS = {"layers": ".*", "heads": ".*", "labels": ""}


class AtTask(nn.Module):
    """A `ManyTask` that gives the logits of one task. Raises ValueError for a task that is not there."""

    def __init__(self, whole: ManyTask, task: str) -> None:
        super().__init__()
        whole.below(task)  # refuses what is no task
        self.whole, self.task = whole, task

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.whole(x, self.task)
        return out
