"""What can be looked at in a network: what weights multiply, gradients of units, curvature over weights.

The only place with hooks. Every function works on a private copy in evaluation mode: the model stays as it is.
"""

from pared.signals.gates import Gates, gated, open_gates, reading_slices
from pared.signals.gradients import unit_gradients
from pared.signals.layout import CurvatureError, Layout, prunable
from pared.signals.private import check_masks, forked, plain_parameters, private, tensor_of
from pared.signals.readings import Reading, Watched, module_calls, module_inputs, read_values
from pared.signals.tapped import inputs_of, output_of
from pared.signals.unrolled import unrolled

__all__ = [
    "CurvatureError",
    "Gates",
    "Layout",
    "Reading",
    "Watched",
    "check_masks",
    "forked",
    "gated",
    "inputs_of",
    "module_calls",
    "module_inputs",
    "open_gates",
    "output_of",
    "plain_parameters",
    "private",
    "prunable",
    "read_values",
    "reading_slices",
    "tensor_of",
    "unit_gradients",
    "unrolled",
]
