"""The page against its record: same numbers, same bytes, hostile text escaped, missing parts told."""

import copy
import html
import math
import re
from typing import Any

import matplotlib
import numpy as np
import pytest
from markupsafe import Markup

from pared.report import claims, figures, forecasts, page, tables, write
from pared.report.summary import interval
from pared.report.svg import style
from report.record import example_record

FIGURES = ("weights", "sizes", "directions", "before-after", "forecast", "curves")


@pytest.fixture(scope="module")
def source() -> str:
    return page(example_record())


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Figures are made but not written, which takes most of the time."""
    for module in (figures, forecasts):
        monkeypatch.setattr(module, "inline", lambda figure, name: Markup("<svg></svg>"))


def text(source: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", source)).split())


def drawn(source: str) -> set[str]:
    found = re.findall(r'<figure id="figure-([a-z-]+)">(.*?)</figure>', source, re.DOTALL)
    return {name for name, body in found if "<svg" in body}


def naive(record: dict[str, Any], arm: str, metric: str) -> list[float]:
    return [
        row["metrics"][metric]
        for row in record["outcomes"]
        if row["arm"] == arm and row["metrics"].get(metric) is not None and row["ratio"] in (None, 0.5)
    ]


def row(table: tables.Table, name: str) -> tuple[str, ...]:
    return next(each for each in table.rows if each[0] == name)


def without_free(record: dict[str, Any]) -> dict[str, Any]:
    record = copy.deepcopy(record)
    for outcome in record["outcomes"]:
        kept = outcome["metrics"].items()
        outcome["metrics"] = {key: value for key, value in kept if "free" not in key and "vpt" not in key}
    record["candidates"] = [each | {"free_direction": None} for each in record["candidates"]]
    for name in ("full", "cut"):
        del record["figures"]["forecast"][name]
    return record


def nothing_chosen() -> dict[str, Any]:
    record = example_record(chosen=None)
    record["shipped"] = record["full_size"] | {"arm": "full", "block": 9, "seed": 1}
    record["outcomes"] = [
        row for row in record["outcomes"] if row["arm"] not in ("cut", "random", "scratch", "trained_on")
    ]
    record["comparisons"] = {arm: record["comparisons"][arm] for arm in ("persistence", "ar")}
    record["directions"] = {}
    return record


def diverged(arm: str) -> dict[str, Any]:
    record = example_record()
    for outcome in record["outcomes"]:
        if outcome["arm"] == arm and outcome["seed"] == 0:
            outcome["metrics"] = dict.fromkeys(outcome["metrics"]) | {"diverged": 1}
    return record


@pytest.mark.slow
def test_same_record_same_bytes_and_settings_outside_do_not_matter(source):
    with matplotlib.rc_context({"text.usetex": True, "lines.linewidth": 9.0, "svg.fonttype": "path"}):
        assert page(example_record()) == source
        assert matplotlib.rcParams["text.usetex"] is True


def test_write_returns_the_path_it_wrote(tmp_path, undrawn):
    path = write(example_record(), tmp_path / "report.html")
    assert path.read_text(encoding="utf-8") == page(example_record())


def test_the_record_is_not_changed(undrawn):
    record = example_record()
    twin = copy.deepcopy(record)
    page(record)
    assert record == twin


@pytest.mark.parametrize("arm", ["full", "cut", "trained_on", "scratch", "random", "flip", "analog"])
def test_controls_are_the_naive_averages(arm):
    record = example_record()
    cells = row(tables.controls(record), tables.label(arm))
    errors = naive(record, arm, "test.nrmse")
    product = 1.0
    for error in errors:
        product *= error ** (1 / len(errors))
    directions, free, vpt = (
        sum(each) / len(each)
        for each in (naive(record, arm, f"test.{key}") for key in ("direction", "free_direction", "vpt"))
    )
    assert float(cells[1]) == pytest.approx(product, rel=5e-3)
    assert cells[2] == f"{100 * directions:.1f}\N{NO-BREAK SPACE}%"
    assert cells[3] == f"{100 * free:.1f}\N{NO-BREAK SPACE}%"
    assert cells[4] == f"{vpt:.1f} ({vpt * 0.6439:.2g})"
    assert cells[6] == f"{len(errors)} of {len(errors)}"


def test_ratio_interval_p_and_verdict_are_those_of_the_comparison():
    record = example_record()
    for arm, found in record["comparisons"].items():
        cells = row(tables.controls(record), tables.label(arm))
        shown = [float(each) for each in re.findall(r"[\d.]+", cells[7])]
        assert shown == pytest.approx([math.exp(found[key]) for key in ("difference", "low", "high")], rel=6e-3)
        assert cells[9] == found["verdict"]
        assert cells[8] == "< 0.001" if found["p_value"] < 0.001 else f"{found['p_value']:.3f}"


def test_size_table_has_full_smaller_and_ratio():
    table = tables.size(example_record())
    assert table.head == ("", "Full network", "Smaller network (shipped)", "Ratio")
    assert row(table, "Parameters") == ("Parameters", "1,513", "657", "0.43")
    assert row(table, "Hidden units") == ("Hidden units", "24", "12", "0.50")
    assert row(table, "Latency of one forecast, ms") == ("Latency of one forecast, ms", "0.131", "0.118", "0.90")


@pytest.mark.parametrize(("sizes", "upright"), [((600, 640, 680), True), ((600, 640, 1400), False)])
def test_labels_of_sizes_that_lie_close_stand_upright(sizes, upright):
    record = example_record()
    for each, size in zip(record["candidates"], sizes, strict=True):
        each["parameters"] = size
    with style():
        drawn = str(figures.sizes(record).svg)
    assert drawn.count("rotate(-90") == (4 if upright else 1)  # the axis has a label, too


@pytest.mark.parametrize(
    ("what", "removed", "sizes"),
    [
        ("units", "Units removed", "Parameters"),
        ("weights", "Weights removed", "Parameters that are not zero"),
        ("layers", "Layers removed", "Parameters"),
    ],
)
def test_the_page_says_what_was_removed(undrawn, what, removed, sizes):
    record = example_record()
    record["settings"]["what"] = what
    for part in (record["shipped"], record["full_size"], *(o["metrics"] for o in record["outcomes"])):
        part["nonzeros"] = part.get("parameters", 0) - 100
    assert tables.candidates(record).head[1:3] == (removed, sizes)
    shown = row(tables.size(record), sizes)
    assert shown[1:3] == (("1,413", "557") if what == "weights" else ("1,513", "657"))
    assert sizes in tables.controls(record).head
    source = text(page(record))
    assert f"Which {what} are removed matters" in source
    assert f"as many {what} removed by chance" in source
    assert ("Recurrent weights of the first layer" in source) == (what == "units")


@pytest.mark.slow
def test_ratios_of_single_layers_are_named_in_their_order(undrawn):
    record = example_record()
    assert "Ratios of single layers" not in text(page(record))
    record["candidates"][1] |= {"label": "ratios 0.5/0.25", "ratios": {"recurrent.0.l0": 0.5, "<head>": 0.25}}
    assert "Ratios of single layers stand in the order recurrent.0.l0, <head>." in text(page(record))


def test_paper_count_is_pooled():
    record = example_record()
    hits = sum(naive(record, "cut", "test.free_hits"))
    cells = row(tables.directions(record), "Smaller network")
    assert cells[2] == f"{hits} of 280 ({100 * hits / 280:.1f}\N{NO-BREAK SPACE}%)"


def test_blocks_have_their_rows_and_errors():
    record = example_record()
    cells = tables.blocks(record).rows[3]
    errors = [o["metrics"]["test.nrmse"] for o in record["outcomes"] if o["arm"] == "full" and o["block"] == 3]
    assert cells[:4] == ("3", "12,000 to 16,999", "17,000 to 17,499", "17,500 to 18,499")
    assert float(cells[4]) == pytest.approx(math.prod(errors) ** 0.5, rel=5e-3)


def test_interval_is_over_blocks_not_over_networks():
    blocks = {0: [0.2, 0.4], 1: [0.9], 2: [0.6]}
    middle, low, high = interval(blocks, 0.95)
    assert middle == pytest.approx((0.3 + 0.9 + 0.6) / 3)
    assert 0.3 <= low < middle < high <= 0.9
    assert interval({0: [0.5]}, 0.95) == (0.5, 0.5, 0.5)


def test_every_part_is_there_and_every_figure_is_drawn(source):
    assert drawn(source) == set(FIGURES)
    order = [
        source.index(f'id="{name}"') for name in ("claims", "controls", "candidates", "figures", "settings", "blocks")
    ]
    assert order == sorted(order)
    assert example_record()["finding"] in text(source)


def test_ids_are_unique_and_references_resolve(source):
    ids = re.findall(r'\bid="([^"]+)"', source)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', source)) <= set(ids)


def test_nothing_is_fetched_and_no_script_runs(source):
    assert not re.search(r"<(script|link rel=.stylesheet|iframe|object|img|image)\b", source)
    assert not re.search(r'(?:src|href)="(?!#|data:,)', source)
    assert "@import" not in source
    assert set(re.findall(r"https?://[^\"\s<]+", source)) <= {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
    }
    assert "default-src 'none'" in source


@pytest.mark.parametrize(
    "hostile", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a & b's $x_{$", "{{ 7 * 7 }} {x}"]
)
def test_hostile_text_is_escaped_everywhere(hostile, undrawn):
    record = example_record(finding=hostile, notes=[hostile], chosen=hostile)
    record["data"] |= {"name": hostile, "columns": [hostile, "<b>x</b>"], "source": hostile}
    record["settings"] |= {"criterion": hostile, "cell": hostile}
    record["candidates"][1]["label"] = hostile
    record["figures"]["weights_label"] = hostile
    for outcome in record["outcomes"]:
        outcome["arm"] = hostile if outcome["arm"] == "ar" else outcome["arm"]
    source = page(record)
    assert not re.search(r"<(script|img|b)\b", source)
    assert "onerror" not in re.sub(r"&[a-z#0-9]+;.*?(?=<|$)", "", re.sub(r">[^<]*<|\"[^\"]*\"", "", source))
    assert source.count(html.escape(hostile, quote=False).split("&")[0]) >= 1
    assert hostile in html.unescape(source)
    assert drawn(source) == set(FIGURES)


def test_claims_follow_the_verdict():
    record = example_record()
    assert claims.badge(record) == ("not inferior", "good")
    assert any("predicts as well as the full one" in each for each in claims.may(record))
    assert any("interval includes 1" in each for each in claims.may_not(record))
    record["comparisons"]["full"] |= {"verdict": "inconclusive"}
    assert claims.badge(record) == ("inconclusive", "open")
    assert not any("as well as" in each for each in claims.may(record))
    record["comparisons"]["full"] |= {"verdict": "inferior"}
    record["shipped"]["arm"] = "full"
    assert claims.badge(record)[1] == "bad"
    assert any("full network is shipped" in each for each in claims.may(record))
    record["comparisons"]["full"] |= {"verdict": "not inferior", "low": 0.01}
    assert any("small loss within the margin" in each for each in claims.may_not(record))


@pytest.mark.slow
def test_quick_few_blocks_and_one_seed_are_told(undrawn):
    record = example_record()
    record["settings"] |= {"quick": True, "seeds": [0]}
    record["comparisons"]["full"]["clusters"] = 3
    sentences = " ".join(claims.may_not(record))
    assert "quick run" in sentences
    assert "3 blocks cannot carry an interval" in sentences
    assert "only one" in sentences
    assert "quick run" in text(page(record))
    assert "not to be claimed yet" in text(page(record))
    assert "not to be claimed yet" not in text(page(example_record()))
    assert "quick run" not in text(page(example_record()))


def test_a_naive_forecaster_that_is_not_beaten_is_named():
    record = example_record()
    record["comparisons"]["analog"] |= {"difference": 0.2, "low": 0.1, "high": 0.3, "verdict": "inferior"}
    assert any("“nearest analogue” is not beaten" in each for each in claims.may_not(record))


def test_nothing_chosen_ships_the_full_network(undrawn):
    record = nothing_chosen()
    source = page(record)
    assert claims.badge(record)[0] == "no smaller network passed"
    assert "None was chosen" in text(source)
    assert tables.size(record).head == ("", "Full network (shipped)")
    assert row(tables.controls(record), "Persistence")[9] == "better"


@pytest.mark.slow
def test_free_running_absent():
    source = page(without_free(example_record()))
    assert drawn(source) == set(FIGURES)
    assert "Free-running forecasts do not apply" in text(source)


@pytest.mark.slow
@pytest.mark.parametrize("missing", [None, {}])
def test_missing_figures_become_sentences(missing, undrawn):
    record = example_record()
    record["figures"] |= {"weights": missing, "curves": missing, "forecast": missing}
    source = page(record)
    assert drawn(source) == {"sizes", "directions", "before-after"}
    assert text(source).count("Not drawn: ") == 3


@pytest.mark.parametrize("arm", ["cut", "flip"])
def test_diverged_networks_are_left_out_and_told(arm, undrawn):
    record = diverged(arm)
    cells = row(tables.controls(record), tables.label(arm))
    assert cells[6].startswith("0 of" if arm == "flip" else "10 of")
    assert any("diverged" in each for each in claims.cautions(record))
    assert drawn(page(record)) == set(FIGURES)


def test_diverged_networks_of_other_candidates_are_not_counted():
    record = example_record()
    cut = [row for row in record["outcomes"] if row["arm"] == "cut"]
    for ratio in (0.5, 0.75):
        row_of_ratio = next(row for row in cut if row["ratio"] == ratio)
        row_of_ratio["metrics"] = {"parameters": 657, "macs": 572, "units": 12, "diverged": 1.0}
    assert row(tables.controls(record), "Smaller network")[6] == "19 of 20"


def test_a_control_that_always_diverged_keeps_its_row():
    record = example_record()
    for outcome in record["outcomes"]:
        if outcome["arm"] == "trained_on":
            outcome["metrics"] = {"parameters": 1513, "diverged": 1.0}
    assert row(tables.controls(record), "Full, trained on")[1:7] == ("–", "–", "–", "–", "1,513", "0 of 20")


@pytest.mark.parametrize(
    ("cell", "init", "expected"),
    [("lstm", "keras", 0.0997), ("gru", "keras", 0.1152), ("rnn", "keras", 0.1995), ("lstm", "torch", 0.125)],
)
def test_dashed_line_is_the_mean_of_untrained_weights(cell, init, expected):
    gates, units = {"lstm": 4, "gru": 3, "rnn": 1}[cell], 16
    rng = np.random.default_rng(0)
    if init == "torch":
        weights = rng.uniform(-(units**-0.5), units**-0.5, (500, units))
    else:
        stacked = [np.linalg.qr(rng.standard_normal((gates * units, units)))[0] for _ in range(100)]
        weights = np.concatenate(stacked)
    assert figures._untrained(units, cell, init) == pytest.approx(expected, abs=1e-4)
    assert np.abs(weights).mean() == pytest.approx(expected, rel=0.03)


@pytest.mark.slow
def test_nulls_and_infinities_in_figures_and_comparisons():
    record = example_record()
    record["figures"]["forecast"]["full"][5:] = [None] * 10
    record["figures"]["forecast"]["cut"][5] = 1e30
    record["figures"]["curves"]["full"]["train"][3] = None
    record["figures"]["curves"]["cut"] = {"train": [1e-4], "validation": []}
    record["figures"]["weights"][0][0] = None
    record["candidates"][0]["comparison"] = None
    record["candidates"][1]["comparison"] |= {"low": None, "high": None}
    record["candidates"][2]["comparison"] |= {"low": -math.inf, "high": math.inf}
    record["comparisons"]["full"] |= {"low": None, "high": None, "p_value": None}
    assert drawn(page(record)) == set(FIGURES)


@pytest.mark.slow
def test_errors_of_very_different_size_are_drawn():
    record = example_record()
    for factor, each in zip((0.0, 2.0, 9.0), record["candidates"], strict=True):
        each["comparison"] |= {"difference": factor, "low": factor - 0.1, "high": factor + 0.1}
    with style():
        assert "10²" in str(figures.sizes(record).svg)


def test_candidates_of_one_size_share_a_label():
    record = example_record()
    last = record["candidates"][-1]
    record["candidates"] = [last | {"label": f"threshold {value}"} for value in (0.09, 0.1, 0.11)]
    places = re.findall(
        r"<!-- threshold [\d.]+ -->\s*<g transform=\"translate\(\S+ (\S+)\)", str(figures.sizes(record).svg)
    )
    assert len({round(float(height)) for height in places}) == 3  # one below the other


def test_numbers_stay_short():
    shown = [tables.significant(value) for value in (None, 0.0, 3.04e-7, 0.0123, 999.4, 8518.43, 999_900, 2.5e7)]
    assert shown == ["–", "0.00", "3.04e-07", "0.0123", "999", "8,520", "1,000,000", "2.5e+07"]


def test_percent_signs_stay_with_their_numbers(undrawn):
    source = page(example_record(finding="−1.2 % error (95 % interval)"))
    assert "−1.2\N{NO-BREAK SPACE}% error (95\N{NO-BREAK SPACE}% interval)" in source


@pytest.mark.slow
def test_thresholds_get_their_own_panel():
    record = example_record()
    for place, each in enumerate(record["candidates"]):
        each |= {"threshold": 0.09 + 0.01 * place, "ratio": None}
    with style():
        assert "threshold of mean |weight|" in str(figures.directions(record).svg)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"outcomes": [], "comparisons": {}, "candidates": [], "chosen": None, "shipped": None, "figures": {}},
        {"comparisons": {}, "directions": {}},
        {"blocks": [], "notes": [], "seconds": {}},
        {"full_size": None, "shipped": None, "data": {"name": "x.csv"}},
    ],
)
def test_interrupted_records(changes, undrawn):
    source = page(example_record(**changes))
    assert "What may be claimed" in source
    assert "NaN" not in text(source)


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [
        ("notes", "finding", "blocks", "seconds", "format", "pared", "directions", "chosen"),
        ("data", "settings", "shipped", "full_size", "comparisons"),
        ("outcomes",),
        ("candidates", "figures"),
    ],
)
def test_entries_may_be_missing(keys, undrawn):
    record = example_record()
    for key in keys:
        del record[key]
    assert "</html>" in page(record)


def test_an_empty_record_has_no_verdict():
    assert "no verdict yet" in page({})


def test_a_few_outcomes_only(undrawn):
    record = example_record(comparisons={}, candidates=[], chosen=None, shipped=None, directions={})
    record["outcomes"] = record["outcomes"][:3]
    source = page(record)
    assert claims.badge(record) == ("no verdict yet", "open")
    assert "before-after" in drawn(source)


@pytest.mark.slow
def test_large_layers_stay_small_files():
    record = example_record()
    record["figures"] |= {"weights": np.ones((100, 100)).tolist(), "column_means": [0.1] * 100, "kept": list(range(50))}
    with style():
        assert len(str(figures.weights(record).svg)) < 150_000
