"""One self-contained HTML page from a record: opens offline, asks for nothing, runs no script."""

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FunctionLoader, Template

from pared.report import claims, figures, forecasts, predictions, tables
from pared.report.summary import Record
from pared.report.svg import Drawing, style
from pared.report.words import parts, words


def page(record: Record) -> str:
    """HTML page of the record; the same record gives the same page, byte for byte.

    Args: record, as `outcomes.json` holds it (JSON types only; null where a network diverged). Parts that are missing
    are replaced by a sentence.
    """
    with style():
        drawings = _of_table(record) if words(record).data == "table" else _of_series(record)
    html: str = template("pared.report", "template.html.j2").render(
        record=record,
        data=record.get("data") or {},
        settings=record.get("settings") or {},
        words=words(record),
        parts=parts(record),
        badge=claims.badge(record),
        may=claims.may(record),
        may_not=claims.may_not(record),
        cautions=claims.cautions(record),
        tables=tables,
        drawings=drawings,
        kinds=claims.KINDS | {"chosen": "plain"},
    )
    return html


def _of_series(record: Record) -> list[Drawing]:
    return [
        *([figures.weights(record)] if parts(record).name == "units" else []),  # it shows which units went
        figures.sizes(record),
        figures.directions(record),
        forecasts.before_after(record),
        forecasts.forecast(record),
        forecasts.curves(record),
    ]


def _of_table(record: Record) -> list[Drawing]:
    return [
        figures.sizes(record),
        predictions.tested(record),
        predictions.predicted(record),
        forecasts.curves(record),
    ]


def write(record: Record, path: str | Path) -> Path:
    """Write the page of the record to `path` (UTF-8); returns the path."""
    path = Path(path)
    path.write_text(page(record), encoding="utf-8", newline="\n")
    return path


def template(package: str, name: str) -> Template:
    """A page's template; it may import the table and include the style of this package."""
    environment = Environment(
        loader=FunctionLoader(lambda part: _text("pared.report", part)),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.from_string(_text(package, name))


def _text(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")
