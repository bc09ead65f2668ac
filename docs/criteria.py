"""Prints the page of criteria from their docstrings: `make docs` writes it to docs/criteria.md."""

import inspect
import re

from pared import criteria

HEAD = """# Criteria

This page is written by `docs/criteria.py` from the docstrings in `src/pared/criteria`; do not edit it.

A criterion is a function `criterion(model, batch, loss, **knobs) -> {name: tensor}`; higher means keep. Scores named
like parameters are scores of weights: `select_weights` makes masks of them, `gradual` removes them step by step with
training in between, `by_unit` reduces them to units. Scores named like groups are scores of units, for `select` and
`cut`.

`pared.reconstruct` solves for the weights that stay: `surgeon` (OBS and Belsley-OBS), `refit_weights` (any masks, by
the loss' curvature), `refit_layers` (any masks, layer by layer; with `obc` Optimal Brain Compression), `sparse_gpt`,
`chita`, `net_trim`.
"""


def page() -> str:
    """The whole page as Markdown."""
    rows = [_row(name) for name in criteria.__all__]
    return "\n".join([HEAD, "| criterion | what it is | scores | cost | source |", "|---|---|---|---|---|", *rows, ""])


def _row(name: str) -> str:
    text = " ".join(inspect.getdoc(getattr(criteria, name)).replace("|", "\\|").split())
    first = inspect.getdoc(getattr(criteria, name)).split("\n\n")[0].replace("|", "\\|")
    parts = [_part(text, title) for title in ("Scores", "Cost", "Source")]
    return f"| `{name}` | {' '.join(first.split())} | " + " | ".join(parts) + " |"


def _part(text: str, title: str) -> str:
    """What a docstring says under a title, up to the next one."""
    found = re.search(rf"{title}: (.*?)(?= (?:Scores|Returns|Cost|Raises|Source): |$)", text)
    return found.group(1) if found else ""


if __name__ == "__main__":
    print(page(), end="")
