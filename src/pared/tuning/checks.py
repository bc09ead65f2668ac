"""What can be wrong with data before any network sees them: rows on both sides of the split, units, wrong labels."""

from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from pared.tuning.reference import Reference
from pared.types import Batch

CERTAIN = 0.25
"""Share of the rows, those that the reference is most certain of, whose labels are looked at."""


@dataclass(frozen=True)
class DataFacts:
    """Numbers about the data, which no training changes; `_low`: lower ends of 95 % intervals.

    examples     for training;
    copies       share of validation rows that are training rows, too (inputs and target);
    overlapping  share of validation windows whose successor is a training window: what they are to forecast was read;
    largest, smallest   of the input columns: greatest root mean square, least deviation (0/1 columns left out);
    target, deviation   root mean square and standard deviation of the targets (1 for classes);
    wrong        share of labels that contradict the other rows, among those on which these are most certain;
                 `suspects`: their rows, the most doubtful first.
    """

    examples: int
    copies: float
    copies_low: float
    overlapping: float
    overlapping_low: float
    largest: float
    smallest: float
    target: float
    deviation: float
    wrong: float
    wrong_low: float
    suspects: tuple[int, ...]


def data_facts(train: Batch, validation: Batch, reference: Reference | None) -> DataFacts:
    """Measures them. Cost: one pass over the rows."""
    largest, smallest = _columns(train.x)
    contradicted, suspects = wrong_labels(train.y, reference) if reference else (torch.zeros(0, dtype=torch.bool), ())
    numbers = train.y.double() if train.y.is_floating_point() else torch.tensor([-1.0, 1.0])
    copies, overlaps = same_rows(train, validation), overlapping(train, validation)
    return DataFacts(
        examples=len(train.x),
        copies=_share(copies),
        copies_low=_share_low(copies),
        overlapping=_share(overlaps),
        overlapping_low=_share_low(overlaps),
        largest=largest,
        smallest=smallest,
        target=float(numbers.square().mean().sqrt()),
        deviation=float(numbers.std(correction=0)),
        wrong=_share(contradicted),
        wrong_low=_share_low(contradicted),
        suspects=suspects,
    )


def _share(found: Tensor) -> float:
    return float(found.double().mean()) if len(found) else 0.0


def _share_low(found: Tensor) -> float:
    """Lower end of Clopper and Pearson's 95 % interval of a share."""
    count = int(found.sum())
    return float(stats.beta.ppf(0.025, count, len(found) - count + 1)) if count else 0.0


def same_rows(among: Batch, rows: Batch) -> Tensor:
    """Which of `rows` are, in inputs and target, also `among` the others: (rows,) booleans."""
    known = set(_keys(among))
    return torch.tensor([key in known for key in _keys(rows)], dtype=torch.bool)


def _keys(batch: Batch) -> list[bytes]:
    x, y = (part.detach().reshape(len(part), -1).numpy() for part in batch)
    return [a.tobytes() + b.tobytes() for a, b in zip(x, y, strict=True)]


def overlapping(among: Batch, windows: Batch) -> Tensor:
    """Which windows have their successor `among` the others: (windows,) booleans.

    A window's successor lacks its first row, and ends with the row that is to be forecast (of one step ahead). In a
    split in time order no training window is one. Windows of fewer than 3 rows tell nothing.
    """
    if windows.x.ndim != 3 or windows.x.shape[1] < 3:
        return torch.zeros(len(windows.x), dtype=torch.bool)
    known = {part.tobytes() for part in among.x[:, :-1].contiguous().numpy()}
    return torch.tensor([part.tobytes() in known for part in windows.x[:, 1:].contiguous().numpy()], dtype=torch.bool)


def _columns(x: Tensor) -> tuple[float, float]:
    """Greatest root mean square and least deviation of the columns that are neither constant nor made of 0 and 1."""
    rows = x.double().reshape(-1, x.shape[-1] if x.ndim in (2, 3) else 1)
    deviation = rows.std(dim=0, correction=0)
    wanted = (deviation > 0) & ~((rows == 0) | (rows == 1)).all(dim=0)
    if not wanted.any():
        return 1.0, 1.0
    return float(rows.square().mean(dim=0).sqrt()[wanted].max()), float(deviation[wanted].min())


def wrong_labels(y: Tensor, reference: Reference) -> tuple[Tensor, tuple[int, ...]]:
    """Classes that contradict what the other rows say of theirs: booleans of those that were looked at, and rows.

    Looked at is the quarter of the rows of which the reference, fitted without them, is most certain (greatest lead of
    its first class over the second). Overlapping classes make contradictions where the lead is small; wrong labels lie
    anywhere. Of numbers none is looked at: large residuals are as frequent in sound chaotic series as among targets of
    which a tenth was exchanged.
    """
    own, rows = y[reference.rows], reference.rows
    if own.is_floating_point():
        return torch.zeros(0, dtype=torch.bool), ()
    first, second = reference.left_out.topk(2, dim=1).values.T
    lead = first - second
    certain = lead >= lead.quantile(1 - CERTAIN)
    wrong = reference.left_out.argmax(dim=1)[certain] != own[certain]
    order = lead[certain][wrong].argsort(descending=True)
    return wrong, tuple(rows[certain][wrong][order].tolist())
