"""Small exact problems that growing networks are measured on; in float64; targets of -0.5 and 0.5, or classes."""

import itertools
import math

import numpy as np
import torch
from torch import Tensor

from pared.types import Batch


def two_spirals(shift: float = 0.0) -> Batch:
    """Two intertwined spirals: x (192, 2), y (192, 1).

    Point i = 0..95 of the first: angle (i + shift) pi / 16, radius 6.5 (104 - i - shift) / 104, x = r sin, y = r cos,
    target 0.5; the second mirrors it with -0.5. `shift` 0.1 gives CMU's test set. Source: Lang & Witbrock (1988).
    """
    i = torch.arange(96, dtype=torch.float64) + shift
    angle, radius = i * math.pi / 16, 6.5 * (104 - i) / 104
    points = torch.stack([radius * angle.sin(), radius * angle.cos()], 1)
    target = torch.full((96, 1), 0.5, dtype=torch.float64)
    return Batch(torch.cat([points, -points]), torch.cat([target, -target]))


def parity(bits: int) -> Batch:
    """All 2^bits patterns of -0.5 and 0.5, (2^bits, bits); target 0.5 where an odd number of them is 0.5."""
    if not 1 <= bits <= 16:
        raise ValueError(f"parity is of 1 to 16 bits, got {bits}")
    ones = torch.tensor(list(itertools.product((0.0, 1.0), repeat=bits)), dtype=torch.float64)
    return Batch(ones - 0.5, ones.sum(1, keepdim=True) % 2 - 0.5)


def encoder(size: int) -> Batch:
    """The encoder problem size-h-size: `size` patterns with one 0.5 among -0.5, each its own target."""
    if size < 2:
        raise ValueError(f"an encoder has at least 2 patterns, got {size}")
    patterns = torch.eye(size, dtype=torch.float64) - 0.5
    return Batch(patterns, patterns.clone())


def bars_and_stripes(size: int) -> Tensor:
    """All pictures whose rows, or whose columns, are each whole or empty: (2^(size + 1) - 2, size^2) of 0 and 1.

    In float64. The best a model of them can do is ln(2^(size + 1) - 2) nats a picture; ln 30 = 3.401 for size 4.
    """
    if not 2 <= size <= 10:
        raise ValueError(f"bars and stripes have 2 to 10 rows, got {size}")
    lines = torch.tensor(list(itertools.product((0.0, 1.0), repeat=size)), dtype=torch.float64)
    stripes = lines[:, :, None].expand(-1, size, size)
    return torch.cat([stripes, stripes[1:-1].transpose(1, 2)]).flatten(1)


REBER = {0: (("B", 1),), 1: (("T", 2), ("P", 3)), 2: (("S", 2), ("X", 4)), 3: (("T", 3), ("V", 5)),
         4: (("X", 3), ("S", 6)), 5: (("P", 4), ("V", 6)), 6: (("E", 0),)}  # fmt: skip
"""Reber's grammar: state -> the symbols that may follow, and the state after each."""


def reber(samples: int, steps: int, seed: int = 0) -> Batch:
    """Strings of Reber's grammar one after the other: x (samples, steps, 7) the symbols B T S X P V E, one of them 0.5;
    y alike: all symbols that may come next are 0.5. What may come follows from the symbols so far, not from the last
    one alone. Drawn from `seed`. Source: Reber (1967); as a task for recurrent networks Cleeremans et al. (1989).
    """
    if samples < 1 or steps < 1:
        raise ValueError(f"samples and steps must be positive, got {samples} and {steps}")
    generator = np.random.default_rng(seed)
    x, y = np.full((2, samples, steps, 7), -0.5)
    for sample in range(samples):
        state = 0
        for step in range(steps):
            symbol, state = REBER[state][generator.integers(len(REBER[state]))]
            x[sample, step, "BTSXPVE".index(symbol)] = 0.5
            for symbol, _ in REBER[state]:
                y[sample, step, "BTSXPVE".index(symbol)] = 0.5
    return Batch(torch.from_numpy(x), torch.from_numpy(y))


def families(samples: int, seed: int = 0, members: int = 4, count: int = 6, inputs: int = 6, law: int = 0) -> Batch:
    """Classes in families: which family is easy to see, which member hard. x (samples, inputs), y (samples,) integers.

    x = c_f + z, z of unit variance; c_f of family f has deviation 3. The member follows from the angle of z in a plane
    of the family's own: floor(members (angle / pi mod 1)), so that opposite sectors are one class and no linear map
    tells members apart. Class = f members + member. Examples are drawn from `seed`, centres and planes from `law`; all
    classes are about equally frequent.
    """
    if min(samples, members - 1, count, inputs - 1) < 1:
        raise ValueError(
            f"samples and families must be positive, members and inputs 2 or more; got {samples}, {count}, {members}, "
            f"{inputs}"
        )
    fixed, draw = np.random.default_rng(law), np.random.default_rng([seed, 1])
    centres = 3 * fixed.standard_normal((count, inputs))
    planes = np.linalg.qr(fixed.standard_normal((count, inputs, 2)))[0]
    family, z = draw.integers(count, size=samples), draw.standard_normal((samples, inputs))
    across, along = np.einsum("nd,ndk->kn", z, planes[family])
    member = np.floor(members * (np.arctan2(along, across) / math.pi % 1)).astype(int) % members
    return Batch(torch.from_numpy(centres[family] + z), torch.from_numpy(family * members + member))
