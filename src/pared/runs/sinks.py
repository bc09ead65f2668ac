"""Runs for other programs: MLflow and TensorBoard, which are imported where they are asked for."""

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from pared.database.entries import Curves, Entry, Run
from pared.runs.conditions import flat, plain
from pared.types import DataError

EXPERIMENT = "pared"
MARK = "pared.id"
"""Tag of MLflow by which a run is found again."""
STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
BATCH, PARAMETERS, LONGEST = 1000, 100, 500
"""What MLflow takes at a time: metrics, parameters, characters of a parameter."""
NUMBERS = ("before", "after", "difference", "low", "high", "parameters_before", "parameters_after", "seconds")


class Point(NamedTuple):
    """A loss after an epoch, or another number (epoch 0)."""

    name: str
    epoch: int
    value: float


def points(entry: Entry) -> Iterator[Point]:
    """Every number of a run: what it came to, then the values of its trials, then every curve."""
    for name in NUMBERS:
        if (value := getattr(entry.run, name)) is not None and math.isfinite(value):
            yield Point(name, 0, float(value))
    for trial in entry.trials:
        name = f"{trial.stage}/trial {trial.number}/seed {trial.seed}"
        for block, curves in enumerate(trial.curves or []):
            yield from _points(f"{name}/block {block}", curves)
        for place, value in enumerate((trial.result or {}).get("values", [])):
            if value is not None and math.isfinite(value):
                yield Point(f"{trial.stage}/value {place}", trial.number, float(value))
    for place, fit in enumerate(entry.fits):
        yield from _points(f"{fit.arm}/block {fit.block}/seed {fit.seed}/network {place}", fit.curves or {})


def to_mlflow(entries: Iterable[Entry], uri: str) -> int:
    """Writes the runs that are not there yet into the experiment "pared" of a tracking server; how many.

    Raises DataError where MLflow is not installed, or cannot be reached.
    """
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise DataError("--mlflow needs the package mlflow: pip install 'pared[mlflow]'") from error
    try:
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        home = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
        return sum(_to_mlflow(client, home, entry) for entry in entries)
    except (MlflowException, ImportError, OSError) as error:
        raise DataError(f"--mlflow {uri} cannot be used: {str(error).splitlines()[0]}") from error


def to_tensorboard(entries: Iterable[Entry], folder: Path) -> int:
    """Writes the runs that are not there yet, a folder each, for `tensorboard --logdir`; how many.

    Raises DataError where TensorBoard is not installed, OSError where the folder cannot be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise DataError("--tensorboard needs the package tensorboard: pip install 'pared[tensorboard]'") from error
    written = 0
    for entry in entries:
        target = folder / f"{entry.run.kind}-{entry.run.id}"
        if target.exists():
            continue
        begun = _seconds(entry.run)
        with closing(SummaryWriter(str(target))) as writer:
            writer.add_text("settings", f"```\n{json.dumps(entry.run.settings, indent=1)}\n```", walltime=begun)
            writer.add_text("finding", entry.run.finding or entry.run.reason or "", walltime=begun)
            for point in points(entry):
                writer.add_scalar(point.name.replace(" ", "_"), point.value, point.epoch, walltime=begun)
        written += 1
    return written


def _to_mlflow(client: Any, home: str, entry: Entry) -> bool:
    from mlflow.entities import Metric, Param

    run, begun = entry.run, round(1000 * _seconds(entry.run))
    if client.search_runs([home], filter_string=f"tags.`{MARK}` = '{run.id}'", max_results=1):
        return False
    told = {MARK: run.id, "kind": run.kind, "data": run.data, "task": run.task, "finding": run.finding, "git": run.git}
    tags = {name: text for name, text in told.items() if text}
    target = client.create_run(home, start_time=begun, run_name=f"{run.data} {run.kind}", tags=tags).info.run_id
    parameters = [Param(name.removeprefix("settings."), plain(v)[:LONGEST]) for name, v in flat(run).items()]
    for start in range(0, len(parameters), PARAMETERS):
        client.log_batch(target, params=parameters[start : start + PARAMETERS])
    metrics = [Metric(point.name, point.value, begun, point.epoch) for point in points(entry)]
    for start in range(0, len(metrics), BATCH):
        client.log_batch(target, metrics=metrics[start : start + BATCH])
    client.set_terminated(target, STATUS[run.status], begun + round(1000 * (run.seconds or 0)))
    return True


def _points(name: str, curves: Curves) -> Iterator[Point]:
    for part, line in curves.items():
        for epoch, value in enumerate(line, 1):
            if value is not None and math.isfinite(value):
                yield Point(f"{name}/{part}", epoch, value)


def _seconds(run: Run) -> float:
    return datetime.fromisoformat(run.begun).timestamp()
