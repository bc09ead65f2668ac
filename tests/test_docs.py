"""The pages that are written by programs say what the programs say now."""

import importlib.util
import re
from pathlib import Path

import pytest

from pared.store import read_settings

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize(
    ("program", "page"),
    [
        ("what_can_be_cut", "what-can-be-cut.md"),
        ("criteria", "criteria.md"),
        ("what_works", "what-works.md"),
        ("search_methods", "search-methods.md"),
    ],
)
def test_the_page_is_up_to_date(program, page):
    spec = importlib.util.spec_from_file_location(program, DOCS / f"{program}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (DOCS / page).read_text(encoding="utf-8")
    assert text == module.page(), "run: make docs"


def test_the_file_of_settings_that_the_guide_shows_is_taken(tmp_path):
    text = (DOCS / "which-method-when.md").read_text(encoding="utf-8")
    (tmp_path / "own.toml").write_text(re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1])
    settings = read_settings(tmp_path / "own.toml")
    assert (settings.recurrent, settings.dropout, settings.optimiser, settings.seeds) == ((128, 128), 0.3, "adam", 2)
