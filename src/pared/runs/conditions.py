"""Conditions on runs as users write them: "data=santa-fe", "after<0.1", "settings.lr>=0.01", "finding~as well"."""

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from pared.database.entries import Run
from pared.types import DataError

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
    "~": lambda value, text: str(text).casefold() in str(value).casefold(),
}
FORM = re.compile(rf"\s*([\w.]+)\s*({'|'.join(OPERATORS)})\s*(.*?)\s*", re.DOTALL)
FIELDS = tuple(each.name for each in fields(Run) if each.name not in ("settings", "remarks"))
HELP = "FIELD OP VALUE with OP one of = != < <= > >= ~ (holds the text); several must all be true"


@dataclass(frozen=True)
class Condition:
    """A field of `Run`, or "settings." and the name of a setting; an operator; what the field is compared to."""

    field: str
    operator: str
    text: str

    def holds(self, run: Run) -> bool:
        """Whether it is true of a run. What is not known equals nothing but the empty text."""
        value = value_of(run, self.field)
        if value is None:
            return {"=": self.text == "", "!=": self.text != ""}.get(self.operator, False)
        wanted: Any = self.text
        if isinstance(value, int | float) and not isinstance(value, bool) and self.operator != "~":
            number = _number(self.text)
            if number is None:
                return self.operator == "!="
            value, wanted = float(value), number
        return OPERATORS[self.operator](value if isinstance(value, float) else plain(value), wanted)


def condition(text: str) -> Condition:
    """Reads one. Raises DataError where it is none, or names no field."""
    match = FORM.fullmatch(text)
    if match is None:
        raise DataError(f"--where takes {HELP}; got {text!r}")
    name = match[1]
    if name not in FIELDS and not name.startswith("settings."):
        raise DataError(f"--where knows no field {name!r}; choose among {', '.join(FIELDS)}, or settings.NAME")
    return Condition(name, match[2], match[3])


def chosen(runs: Sequence[Run], texts: Iterable[str]) -> list[Run]:
    """The runs of which all conditions are true. Raises DataError where one is none, or no run has such a setting."""
    conditions = [condition(text) for text in texts]
    for each in conditions:
        if each.field not in FIELDS and runs and all(each.field not in flat(run) for run in runs):
            raise DataError(f"--where: no run has {each.field}; `pared runs show` lists the settings of one")
    return [run for run in runs if all(each.holds(run) for each in conditions)]


def value_of(run: Run, field: str) -> Any:
    """A field of a run, or a setting; None where it has none."""
    return getattr(run, field) if field in FIELDS else flat(run).get(field)


def flat(run: Run) -> dict[str, Any]:
    """The settings of a run by their names, "settings.protocol.train" and so on."""
    return dict(_flat("settings", run.settings))


def plain(value: Any) -> str:
    """A value as it is shown and compared: lists by comma."""
    if isinstance(value, list):
        return ",".join(map(plain, value))
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: ""}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _flat(name: str, value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        for each, inner in value.items():
            yield from _flat(f"{name}.{each}", inner)
    else:
        yield name, value


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
