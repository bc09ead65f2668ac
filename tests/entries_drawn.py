"""Entries of any kind, as Hypothesis draws them."""

from dataclasses import fields
from typing import get_type_hints

from hypothesis import strategies as st

from pared.database.entries import Compared, Cut, Entry, Fit, Run, Trial

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
FLOATS = st.floats(allow_nan=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(max_size=5), JSON, max_size=3)
CURVES = st.dictionaries(st.sampled_from(["train", "validation"]), st.lists(st.none() | FLOATS, max_size=4))
OF_TYPE = {
    "str": TEXT,
    "int": st.integers(-(2**63), 2**63 - 1),
    "float": FLOATS,
    "bool": st.booleans(),
}
OF_FIELD = {
    "settings": OBJECTS,
    "point": OBJECTS,
    "metrics": st.dictionaries(st.text(max_size=5), st.none() | FLOATS, max_size=3),
    "result": st.none() | OBJECTS,
    "plan": st.none() | OBJECTS,
    "comparison": st.none() | OBJECTS,
    "remarks": st.lists(TEXT, max_size=2),
    "pairs": st.integers(0, 2**31 - 1),
    "clusters": st.integers(0, 2**31 - 1),
    "diverged": st.integers(0, 2**31 - 1),
}


def of(kind):
    """Any value of a dataclass of entries."""
    hints = get_type_hints(kind)
    drawn = {}
    for each in fields(kind):
        if each.name == "curves":
            drawn["curves"] = st.none() | (st.lists(CURVES, max_size=2) if kind is Trial else CURVES)
        elif each.name in OF_FIELD:
            drawn[each.name] = OF_FIELD[each.name]
        else:
            plain, *none = str(hints[each.name]).replace("<class '", "").replace("'>", "").split(" | ")
            drawn[each.name] = OF_TYPE[plain] | st.none() if none else OF_TYPE[plain]
    return st.builds(kind, **drawn)


ENTRIES = st.builds(
    Entry,
    run=of(Run),
    trials=st.lists(of(Trial), max_size=2),
    fits=st.lists(of(Fit), max_size=2),
    cuts=st.lists(of(Cut), max_size=2),
    comparisons=st.lists(of(Compared), max_size=2),
)
