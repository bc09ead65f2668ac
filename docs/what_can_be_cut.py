"""Prints the page "What can be cut" from the rules that do it: `make docs` writes it to docs/what-can-be-cut.md."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pared import trace
from pared.surgery.rules import MODULES, OPERATIONS
from pared.surgery.rules.exported import RULES

HEAD = """# What can be cut

This page is written by `docs/what_can_be_cut.py` from the rules in `src/pared/surgery/rules`; do not edit it.

A *unit* is a neuron, a channel, a recurrent cell, a head, or a place within the heads. What a layer does to the units
that flow through it is its rule. Units that meet element by element (in a residual sum, a product, a shared weight)
live and die together: they are one *group*, which `structure.explain()` shows for your own network. Whatever enters the
network and whatever leaves it keeps its size.

* **exact**: the cut network computes what the full one computes with the removed units silenced, to 1e-12 in float64.
* **not exact**: layer normalisation and softmax over units make each depend on all the others. They can be cut; the
  group says `exact=False`.
* **stays**: where the code around a layer writes a size down (`x.view(-1, 128)`, `x[:, :64]`), sums or averages over
  units, or returns them, the group stays, and `explain()` says why. Write `-1`, `flatten`, `chunk`, or a size read from
  a shape.
* **refused**: an operation without a rule that units flow into raises `StructureError` and names the place.

Models are followed by torch.fx. Where that cannot (control flow on shapes, loops over a length) torch.export does, and
each group that it finds is tried out before it is offered. Control flow on values is refused by both.

Zeros that pruning of weights leaves may make units useless. `shed_dead_units` cuts those that nothing reads, and those
that no input reaches once the biases of their readers have taken over what they add: the outputs stay what they are.
`dead_units` says which constants cannot move (past zero padding, into a layer without a bias, through a recurrence).
"""

EXAMPLE = """## An example

```python
{source}
print(pared.trace(model, torch.zeros(1, 3, 8, 8)).explain())
```

```text
{explained}
```
"""

SOURCE = """model = nn.Sequential(
    nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
    nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 16, 1), nn.GroupNorm(4, 16), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(256, 10), nn.LayerNorm(10), nn.Linear(10, 2),
)"""


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD, "## Layers\n", _table(MODULES, "layer"), "\n## Functions, methods and operators\n"]
    parts += [_table(OPERATIONS, "operation"), "\n## Operations that torch.export writes\n", _table(RULES, "operation")]
    space: dict[str, Any] = {"nn": nn}
    exec(SOURCE, space)
    explained = trace(space["model"], torch.zeros(1, 3, 8, 8)).explain()
    return "\n".join([*parts, "", EXAMPLE.format(source=SOURCE, explained=explained)])


def _table(rules: Mapping[Any, Any], what: str) -> str:
    """A row for every sentence, with all that it holds for."""
    names: dict[str, list[str]] = {}
    for key, rule in rules.items():
        text = " ".join(inspect.getdoc(rule).split("\n\n")[0].split())
        names.setdefault(text, []).append(key if isinstance(key, str) else _name(key))
    rows = [f"| {', '.join(f'`{n}`' for n in who)} | {text} |" for text, who in names.items()]
    return "\n".join([f"| {what} | what happens to units |", "|---|---|", *rows])


def _name(kind: type[nn.Module]) -> str:
    home = "nn" if kind.__module__.startswith("torch.") else "pared.models"
    return f"{home}.{kind.__name__}"


if __name__ == "__main__":
    print(page(), end="")
