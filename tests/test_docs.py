"""The pages that are written by programs say what the programs say now."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def test_what_can_be_cut_is_up_to_date():
    spec = importlib.util.spec_from_file_location("what_can_be_cut", DOCS / "what_can_be_cut.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (DOCS / "what-can-be-cut.md").read_text(encoding="utf-8")
    assert text == module.page(), "run: make docs"
