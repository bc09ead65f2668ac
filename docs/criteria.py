"""Prints the page of criteria from their docstrings: `make docs` writes it to docs/criteria.md."""

import inspect
import re
from collections.abc import Callable

import pared
from pared import criteria, reconstruct

HEAD = """# Criteria

This page is written by `docs/criteria.py` from the docstrings in `src/pared/criteria`; do not edit it.

A criterion is a function `criterion(model, batch, loss, **knobs) -> {name: tensor}`; higher means keep. Scores named
like parameters are scores of weights: `select_weights` makes masks of them, `gradual` removes them step by step with
training in between, `by_unit` reduces them to units. Scores named like groups are scores of units, for `select` and
`cut`. Scores that are one number each are of whole layers, for `drop_layer` and `shed_layers`.
"""

AROUND = """
## What goes, and what makes up for it

`pared.reconstruct` solves for the weights that stay; the others choose, remove and repair.

| function | what it does | cost | source |
|---|---|---|---|"""

METHODS = """
## Methods by their names

What papers call a method is often a criterion, a rule and a repair together. `mask_weights` and `cut` come after
`select_weights` and `select`; `config` is a `TrainConfig`.

| method | how |
|---|---|
| magnitude, globally, in every layer, in every row | `select_weights(magnitude(...), 0.9, "global")`, `"layer"`, \
`"row"` |
| Han et al.: s standard deviations, retraining, dropout that follows | `gradual(model, split, deviation, \
Steps(Constant(0.5), 5, dropout=True, rule=Threshold), config)` |
| one shot, linear, exponential, cubic removal | `gradual` with `Steps(OneShot(0.9), 1)`, `Linear`, `Exponential`, \
`Cubic` |
| OBD: exact, Gauss-Newton, Hutchinson, LeCun's recursion, Levenberg-Marquardt | `obd(diagonal="exact")`, `"ggn"`, \
`"hutchinson"`, `"lecun"`, `"levenberg"` |
| OBS: one weight, with the gradient, by recursion over samples | `obs`, `obs(gradient=True)`, `obs(recursive=True)` |
| OBS for a set of weights, or whole units | `group_obs`; `reconstruct.refit_weights` with `unit_masks` for the shift |
| WoodFisher, WoodTaylor | `woodfisher`, `woodfisher(gradient=True)`; `reconstruct.refit_weights(matrix="fisher")` |
| Belsley: three readings, three posteriors, one decomposition or many, ridge | `belsley(reading=, posterior=, ridge=, \
recompute=)` |
| Graves' signal-to-noise ratio | `snr(posterior="variational", covariance="diagonal" or "full")` |
| OBC, SparseGPT, CHITA, Net-Trim | `obc` with `reconstruct.refit_layers`; `reconstruct.sparse_gpt`, `chita`, \
`net_trim` |
| SynFlow | `gradual(model, split, synflow, Steps(Exponential(0.99), 100))` |
| Wolfe et al.: algorithm I, algorithm II, with the oracle, first or second order | `select` by `ablation` or \
`predicted_ablation(order=1)`, `2`; `reranked(criterion=...)` |
| Taylor of the loss: absolute or signed; of the output, (h dy/dh)^2 | `taylor(of="loss", power=1)`, \
`predicted_ablation(order=1, absolute=True)`, `predicted_ablation(order=1)`; `taylor` |
| He et al.: onorm, inorm, entropy | `norm`, `norm(side="in")`, `entropy` |
| Srinivas & Babu, with surgery | `similarity`, then `merge` before `cut` |
| DivNet, with fusing | `sample_diverse` (or `determinantal`), then `compensate` before `cut` |
| junk neurons, all readings | `junk(gate=, direction=, row_normalise=)` |
| importance of layers recorded while training | `fit_watching_layers`, with any criterion of layers |
| a layer dropped: exact, Bussgang's gain, least squares; residual and recurrent ones | `drop_layer(method=)` |
"""

FUNCTIONS: tuple[Callable[..., object], ...] = (
    pared.select, pared.select_weights, pared.mask_weights, pared.unit_masks, pared.adapt_dropout, pared.gradual,
    reconstruct.surgeon, reconstruct.refit_weights, reconstruct.refit_layers, reconstruct.sparse_gpt,
    reconstruct.chita, reconstruct.net_trim, pared.compensate, pared.merge, pared.drop_layer,
    pared.fit_watching_layers, pared.shed_layers,
)  # fmt: skip


def page() -> str:
    """The whole page as Markdown."""
    rows = [_row(name, getattr(criteria, name), ("Scores", "Cost", "Source")) for name in criteria.__all__]
    around = [_row(_called(function), function, ("Cost", "Source")) for function in FUNCTIONS]
    head = "| criterion | what it is | scores | cost | source |", "|---|---|---|---|---|"
    return "\n".join([HEAD, *head, *rows, AROUND, *around, METHODS])


def _called(function: Callable[..., object]) -> str:
    inside = function.__module__ == reconstruct.__name__
    return f"reconstruct.{function.__name__}" if inside else function.__name__


def _row(name: str, function: Callable[..., object], titles: tuple[str, ...]) -> str:
    text = " ".join(inspect.getdoc(function).replace("|", "\\|").split())
    first = inspect.getdoc(function).split("\n\n")[0].replace("|", "\\|")
    return f"| `{name}` | {' '.join(first.split())} | " + " | ".join(_part(text, title) for title in titles) + " |"


def _part(text: str, title: str) -> str:
    """What a docstring says under a title, up to the next one."""
    found = re.search(rf"{title}: (.*?)(?= (?:(?:Scores|Returns|Cost|Source):|Raises:?) |$)", text)
    return found.group(1) if found else ""


if __name__ == "__main__":
    print(page(), end="")
