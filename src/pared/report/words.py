"""What the page calls things, by what the networks predict: of a series or of a table, a number or a class."""

from dataclasses import dataclass

from pared.report.summary import Record


@dataclass(frozen=True)
class Words:
    """Nouns and phrases that sentences, heads of tables and figures are put together from.

    `measure` names what two networks are compared by, `neutral` its value where they are equal; `lossy` says of its
    interval that something was lost. `metric` and `heading` are what tables show first and its name, `beside` what
    candidates show besides, and the names.
    """

    data: str
    blocks: str
    prediction: str
    predictor: str
    predicts: str
    measure: str
    measured: str
    neutral: str
    lossy: str
    metric: str
    heading: str
    loss: str
    beside: tuple[tuple[str, str], ...]


FORECASTING = Words(
    data="series",
    blocks="block",
    prediction="forecast",
    predictor="naive forecaster",
    predicts="forecasts",
    measure="ratio of test errors",
    measured="ratio of errors",
    neutral="1",
    lossy="above 1",
    metric="nrmse",
    heading="NRMSE",
    loss="mean squared error",
    beside=(("direction", "Direction, one step"), ("free_direction", "Direction, free running")),
)
REGRESSION = Words(
    data="table",
    blocks="fold",
    prediction="prediction",
    predictor="naive predictor",
    predicts="predicts",
    measure="ratio of test errors",
    measured="ratio of errors",
    neutral="1",
    lossy="above 1",
    metric="nrmse",
    heading="NRMSE",
    loss="mean squared error",
    beside=(("r2", "R²"),),
)
CLASSIFICATION = Words(
    data="table",
    blocks="fold",
    prediction="prediction",
    predictor="naive predictor",
    predicts="predicts",
    measure="difference in test accuracy",
    measured="difference in accuracy",
    neutral="0",
    lossy="below 0",
    metric="accuracy",
    heading="Accuracy",
    loss="cross-entropy",
    beside=(("accuracy", "Accuracy"),),
)


def words(record: Record) -> Words:
    """The words of the record's task; a series where it names none."""
    return {"regression": REGRESSION, "classification": CLASSIFICATION}.get(str(record.get("task")), FORECASTING)


@dataclass(frozen=True)
class Parts:
    """What was taken out of the networks.

    `size` is the figure that was to become small, and `sizes` its name.
    """

    name: str
    size: str
    sizes: str


UNITS = Parts("units", "parameters", "parameters")
WEIGHTS = Parts("weights", "nonzeros", "parameters that are not zero")
LAYERS = Parts("layers", "parameters", "parameters")


def parts(record: Record) -> Parts:
    """What the record's networks lost; units where it does not say."""
    return {"weights": WEIGHTS, "layers": LAYERS}.get(str((record.get("settings") or {}).get("what")), UNITS)
