"""Data: series and tables, built in or from CSV files, and their leak-free splits into windows and folds."""

from pared.data.batches import Data, batches, first_batch
from pared.data.catalogue import BUILTINS, builtin, load, santa_fe, sunspots
from pared.data.chaos import henon, logistic, lorenz, mackey_glass, rossler, switching
from pared.data.classics import TABLES, classic
from pared.data.examples import Encoding, Table, read_table
from pared.data.folds import Fold, folds
from pared.data.puzzles import bars_and_stripes, encoder, families, parity, reber, two_spirals
from pared.data.series import Series, resolve_predict
from pared.data.splits import PAPER, Block, Framing, Protocol, Scaler, Split, fit_scaler, protocol_for, rolling_origin
from pared.data.tables import read_csv
from pared.data.windows import windows

__all__ = [
    "BUILTINS",
    "PAPER",
    "TABLES",
    "Block",
    "Data",
    "Encoding",
    "Fold",
    "Framing",
    "Protocol",
    "Scaler",
    "Series",
    "Split",
    "Table",
    "bars_and_stripes",
    "batches",
    "builtin",
    "classic",
    "encoder",
    "families",
    "first_batch",
    "fit_scaler",
    "folds",
    "henon",
    "load",
    "logistic",
    "lorenz",
    "mackey_glass",
    "parity",
    "protocol_for",
    "read_csv",
    "read_table",
    "reber",
    "resolve_predict",
    "rolling_origin",
    "rossler",
    "santa_fe",
    "sunspots",
    "switching",
    "two_spirals",
    "windows",
]
