"""Models in use, made by hand in no time, and new data for them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn
from torch.nn.functional import mse_loss

from pared import run, run_table, store
from pared.data import Series, Table, load, read_table
from pared.database import provenance
from pared.search.subject import fingerprint
from pared.settings import RunConfig, TableConfig
from pared.surgery import Plan
from pared.training import fit

CONFIG = RunConfig(recurrent=(4,), dense=(), window=3, predict="values", epochs=20)
TABLE = TableConfig("regression", hidden=(4,), epochs=20)


def logistic(count: int, mu: float, value: float = 0.3) -> list[float]:
    found = [value]
    for _ in range(count - 1):
        found.append(mu * found[-1] * (1 - found[-1]))
    return found


def write_series(path: Path, values: list[float], name: str = "value") -> Path:
    path.write_text("\n".join(["day," + name, *(f"d{row},{value!r}" for row, value in enumerate(values))]) + "\n")
    return path


def write_table(path: Path, count: int, slope: float = 1.0, seed: int = 0, header: str = "a,b,y") -> Path:
    drawn = np.random.default_rng(seed).normal(size=(count, 3))
    rows = [f"{a!r},{b!r},{slope * a + b / 2 + noise / 2!r}" for a, b, noise in drawn.tolist()]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def deploy_series(path: Path, epochs: int = 20) -> Path:
    """The folder of a run of a series beside it, as far as a tuning reads it; its network learnt for so many epochs."""
    series = load(str(path), "value")
    return _folder(path, series, run.job(series, CONFIG), CONFIG.network(1, {}, 0), epochs)


def deploy_table(path: Path, epochs: int = 20) -> Path:
    """The same of a table."""
    table = read_table(path, "y")
    return _folder(path, table, run_table.job(table, TABLE), TABLE.network(2, 1, {}, 0), epochs)


def _folder(path: Path, data: Series | Table, job, network: nn.Module, epochs: int) -> Path:
    folder = path.with_name(f"{path.stem}-seed0")
    folder.mkdir()
    block = job.blocks[-1]
    trained = fit(network, block, replace(job.config.training, epochs=epochs), mse_loss).model
    store.write_model(folder, trained, Plan({}), None, job.saved(block))
    record = {"format": 1, "outcomes": [], "candidates": [], "comparisons": {}, "directions": {}, "notes": []}
    shipped = {"block": block.block, "seed": 0}
    store.write_record(folder, {**record, **job.head, "finding": "", "shipped": shipped})
    made = provenance.fresh("run", data.name)
    provenance.write(folder, replace(made, fingerprint=fingerprint(data)["sha256"], status="finished"))
    return folder
