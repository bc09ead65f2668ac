"""What each figure shows and how to read it; names in braces are filled in from the record."""

WEIGHTS = """
Top: size of the weight from unit (column) to unit (row) in the first recurrent layer of the full network ({what}).
Bottom: the mean of each column, which is the importance in the junk-neuron paper (there: the output gate of an
LSTM); a low point means that the other units hardly listen to that unit. {removed} of {units} units were removed
(open markers), chosen by the criterion “{criterion}”, which need not follow this line. The dashed line at
{scale:.3f} is the mean of weights that were never trained: the paper’s thresholds lie close to it, and columns near
it say little.
"""
SIZES = """
Each point is a candidate: its NRMSE on validation data divided by that of the full network (geometric mean over
blocks and seeds), with its {level} interval. A candidate may be chosen if its whole interval stays below the upper
edge of the green band, the margin stated beforehand; the leanest such candidate is chosen (filled).
"""
ACCURACIES = """
Each point is a candidate: its accuracy on validation data less that of the full network (mean over folds and seeds), in
points, with its {level} interval. A candidate may be chosen if its whole interval stays above the lower edge of the
green band, the margin stated beforehand; the leanest such candidate is chosen (filled).
"""
SIZES_LEFT_OUT = "Not shown, because no comparison was possible: {count}."
DIRECTIONS = """
Share of up-or-down moves forecast rightly on validation data, from the full network (nothing removed) to the
leanest candidate. A flat line means that deletion costs nothing here; differences of a point or two are usual
between equal networks that differ only in their seed.
"""
BEFORE_AFTER = """
Share of up-or-down moves forecast rightly on test data. Large marker and bar: mean over blocks with its {level}
interval (blocks drawn with replacement); small dots: single blocks. Dotted line: tossing a coin. Coloured:
networks; grey: naive forecasters. A network shows skill only to the right of the best grey marker, and deletion
helped only if the smaller network lies to the right of “{control}”.
"""
FORECAST = """
Values of “{column}” in their own units at the start of the shipped network’s test data; left of the vertical line
is the known past. This is one example, and forecasts far outside the range of the series leave the frame: the
tables hold the averages.
"""
CURVES = """
{loss} after each epoch, for the shipped {block} and seed. Each network is taken from its epoch of lowest
validation error, so that none is judged by what overfitting made of it. Epochs of the smaller network and of the full
network trained on are those after the cut, so their lines are short and start low. Training lines far below
validation lines mean overfitting; lines still falling at their end mean that more epochs would help, so that
comparisons hold for this budget only.
"""
FREE = """
One-step forecasts start from the true last value; free-running ones feed on themselves. Those of a chaotic series
must leave the truth in the end, however good the network: what counts is how long they stay with it.
"""
TESTED = """
{what} on test data. Large marker and bar: mean over folds with its {level} interval (folds drawn with replacement);
small dots: single folds. Coloured: networks; grey: naive predictors. A network shows skill only {side} of the best
grey marker, and deletion helped only if the smaller network lies {side} of “{control}”.
"""
CONFUSION = """
Test rows of all folds and seeds: how many of a class (row) were put into which class (column). What lies off the
diagonal is wrong; colours are shares of the row. The smaller network may fail on other classes than the full one
although both are right equally often.
"""
PREDICTIONS = """
“{column}” in its own units: test rows of all folds, at most 600 of them, predicted by the networks of the shipped seed.
On the line, a prediction is right. Every row is predicted by a network that was not trained on it.
"""
NO_FREE = "Free-running forecasts do not apply to this run or were not stored."


def caption(*parts: str, **names: object) -> str:
    """Parts joined and filled in."""
    return " ".join(" ".join(parts).split()).format(**names)
