"""A believable record: logistic map, 10 blocks x 2 seeds, three ratios, every arm; nothing was trained for it."""

import math
from typing import Any

import numpy as np

RATIOS = (0.25, 0.5, 0.75)
CHOSEN = 0.5
BLOCKS, SEEDS = 10, 2
SIZES = {None: (1513, 24, 1384), 0.25: (1037, 18, 932), 0.5: (657, 12, 572), 0.75: (373, 6, 306)}
# arm: NRMSE, one-step direction, free-running direction, valid prediction time
TRAINED = {
    "full": (0.0087, 0.999, 0.83, 9.1),
    "cut": (0.0085, 0.999, 0.826, 9.0),
    "trained_on": (0.0082, 0.999, 0.835, 9.3),
    "scratch": (0.0088, 0.999, 0.824, 8.9),
    "random": (0.0137, 0.997, 0.78, 7.2),
}
NAIVE = {
    "persistence": (1.41, 0.0, 0.02, 0.3),
    "flip": (1.12, 0.83, 0.45, 0.4),
    "same": (2.45, 0.17, 0.55, 0.1),
    "mean": (1.0, 0.837, 0.51, 0.2),
    "ar": (0.98, 0.86, 0.53, 0.4),
    "analog": (0.031, 0.99, 0.884, 7.1),
}


def _metrics(part: str, level: tuple[float, float, float, float], rng: np.random.Generator) -> dict[str, float]:
    nrmse, direction, free, vpt = level
    share = float(np.clip(direction + 0.002 * rng.standard_normal(), 0, 1))
    free_share = float(np.clip(free + 0.03 * rng.standard_normal(), 0, 1))
    return {
        f"{part}.nrmse": nrmse * math.exp(0.05 * rng.standard_normal()),
        f"{part}.direction": share,
        f"{part}.direction_hits": round(14 * share),
        f"{part}.direction_total": 14,
        f"{part}.free_direction": free_share,
        f"{part}.free_hits": round(14 * free_share),
        f"{part}.free_total": 14,
        f"{part}.vpt": vpt * math.exp(0.05 * rng.standard_normal()),
    }


def _outcome(block: int, seed: int, arm: str, ratio: float | None, metrics: dict[str, float]) -> dict[str, Any]:
    plan = None if ratio is None else {"keep": {"layers.0": list(range(round(16 * (1 - ratio))))}}
    where = {"data": "logistic-3.99", "block": block, "seed": seed}
    return {**where, "arm": arm, "ratio": ratio, "metrics": metrics, "plan": plan}


def _outcomes(rng: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for block in range(BLOCKS):
        shared = math.exp(0.25 * rng.standard_normal())  # some blocks are harder
        for seed in range(SEEDS):
            for arm, level in TRAINED.items():
                for ratio in RATIOS if arm == "cut" else (CHOSEN,) if arm in ("scratch", "random") else (None,):
                    harder = {0.25: 0.98, 0.75: 1.9}.get(ratio or 0, 1.0)
                    scaled = (level[0] * shared * harder, level[1], level[2] - 0.06 * (harder > 1.5), level[3])
                    parameters, units, macs = SIZES[ratio]
                    metrics = {"parameters": parameters, "units": units, "macs": macs}
                    metrics |= _metrics("validation", scaled, rng)
                    if ratio in (None, CHOSEN):
                        metrics |= _metrics("test", scaled, rng)
                    rows.append(_outcome(block, seed, arm, ratio, metrics))
        for arm, level in NAIVE.items():
            rows.append(_outcome(block, 0, arm, None, _metrics("test", level, rng)))
    return rows


def _errors(outcomes: list[dict[str, Any]], arm: str, ratio: float | None, metric: str) -> np.ndarray:
    """Mean log error of each block."""
    pairs: dict[int, list[float]] = {}
    for row in outcomes:
        if row["arm"] == arm and row["ratio"] == ratio and metric in row["metrics"]:
            pairs.setdefault(row["block"], []).append(math.log(row["metrics"][metric]))
    return np.array([np.mean(pairs[block]) for block in sorted(pairs)])


def _comparison(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    gap = first - second
    difference, half = float(gap.mean()), float(2.262 * gap.std(ddof=1) / math.sqrt(len(gap)))
    low, high, margin = difference - half, difference + half, 0.05
    limit = math.log1p(margin)
    verdict = "inconclusive"
    verdict = "better" if high < 0 else "not inferior" if high < limit else "inferior" if low > limit else verdict
    p_value = math.erfc(abs(difference) / half * 2.262 / math.sqrt(2))
    return {
        "difference": difference, "low": low, "high": high, "p_value": p_value, "margin": margin, "verdict": verdict,
        "pairs": BLOCKS * SEEDS, "clusters": BLOCKS, "scale": "log",
    }  # fmt: skip


def _mean(outcomes: list[dict[str, Any]], ratio: float, metric: str) -> float:
    return float(np.mean([o["metrics"][metric] for o in outcomes if o["arm"] == "cut" and o["ratio"] == ratio]))


def _candidates(outcomes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    full = _errors(outcomes, "full", None, "validation.nrmse")
    return [
        {
            "label": f"ratio {ratio}",
            "ratio": ratio,
            "threshold": None,
            "removed": ratio,
            "parameters": SIZES[ratio][0],
            "comparison": _comparison(_errors(outcomes, "cut", ratio, "validation.nrmse"), full),
            "diverged": 0,
            "direction": _mean(outcomes, ratio, "validation.direction"),
            "free_direction": _mean(outcomes, ratio, "validation.free_direction"),
        }
        for ratio in RATIOS
    ]


def _logistic(start: float, steps: int) -> list[float]:
    values = [start]
    for _ in range(steps - 1):
        values.append(3.99 * values[-1] * (1 - values[-1]))
    return values


def _figures(rng: np.random.Generator) -> dict[str, Any]:
    weights = np.abs(rng.normal(0, 0.37, (16, 16))) * rng.uniform(0.35, 1.3, 16)
    means = weights.mean(axis=0)
    context, truth = _logistic(0.3127, 55)[:40], _logistic(0.3127, 55)[40:]
    epochs = np.arange(1, 151)

    def curve(floor: float, rate: float, start: float = 0.3) -> dict[str, list[float]]:
        clean = floor + start * np.exp(-epochs / rate)
        return {
            "train": (clean * np.exp(0.08 * rng.standard_normal(150))).tolist(),
            "validation": (1.15 * clean * np.exp(0.12 * rng.standard_normal(150))).tolist(),
        }

    return {
        "weights": weights.tolist(),
        "weights_label": "|w| of recurrent.0, output gate",
        "column_means": means.tolist(),
        "kept": sorted(np.argsort(means)[-8:].tolist()),
        "curves": {
            "full": curve(9e-6, 9),
            "cut": {key: value[:30] for key, value in curve(9e-6, 5, 2e-4).items()},
            "scratch": curve(1.1e-5, 13),
            "trained_on": {key: value[:30] for key, value in curve(8e-6, 9, 1e-6).items()},
        },
        "forecast": {
            "context": context,
            "truth": truth,
            "full": _logistic(truth[0] + 2e-3, 15),
            "cut": _logistic(truth[0] - 3e-3, 15),
            "one_step_full": (np.array(truth) + rng.normal(0, 0.003, 15)).tolist(),
            "one_step_cut": (np.array(truth) + rng.normal(0, 0.003, 15)).tolist(),
        },
    }


def example_record(**changes: Any) -> dict[str, Any]:
    """The record of a finished run, with the given top-level entries replaced."""
    rng = np.random.default_rng(7)
    outcomes = _outcomes(rng)
    cut = _errors(outcomes, "cut", CHOSEN, "test.nrmse")
    arms = {arm: CHOSEN if arm in ("scratch", "random") else None for arm in (*TRAINED, *NAIVE) if arm != "cut"}
    ends = [4000 * block + 5000 for block in range(BLOCKS)]
    record = {
        "format": 1,
        "pared": "0.1.0",
        "data": {
            "name": "logistic-3.99", "length": 50000, "columns": ["x"], "lyapunov": 0.6439,
            "source": "Logistic map x' = 3.99 x (1 - x), started at 0.3127.",
        },
        "settings": {
            "cell": "lstm", "recurrent": [16, 4], "dense": [4], "window": 2, "horizon": 1, "predict": "values",
            "epochs": 150, "lr": 0.01, "batch_size": 32, "refit_epochs": 30, "seeds": [0, 1], "criterion": "taylor",
            "candidates": [f"ratio {ratio}" for ratio in RATIOS], "margin": 0.05, "quick": False, "level": 0.95,
            "protocol": {"train": 5000, "validation": 500, "test": 1000, "stride": 4000, "blocks": 10},
        },
        "blocks": [
            {"block": b, "train": [e - 5000, e], "validation": [e, e + 500], "test": [e + 500, e + 1500]}
            for b, e in enumerate(ends)
        ],
        "outcomes": outcomes,
        "candidates": _candidates(outcomes),
        "chosen": f"ratio {CHOSEN}",
        "shipped": {"arm": "cut", "block": 9, "seed": 1, "parameters": 657, "macs": 572, "milliseconds": 0.118},
        "full_size": {"parameters": 1513, "macs": 1384, "milliseconds": 0.131},
        "comparisons": {arm: _comparison(cut, _errors(outcomes, arm, r, "test.nrmse")) for arm, r in arms.items()},
        "directions": {
            "full": {"only_first": 9, "only_second": 7, "p_value": 0.804},
            "trained_on": {"only_first": 5, "only_second": 8, "p_value": 0.581},
            "flip": {"only_first": 3391, "only_second": 4, "p_value": 0.0},
        },
        "notes": ["The candidate was chosen on validation data; the test data were looked at once."],
        "finding": "A network with 657 of 1,513 parameters (57 % fewer) forecasts as well as the full one.",
        "figures": _figures(rng),
        "seconds": {"total": 168.2, "train": 121.5, "cut": 4.1, "refit": 39.0},
    }  # fmt: skip
    return record | changes
