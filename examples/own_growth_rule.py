"""A growth rule of your own: new units get the inputs of the longest ones, upside down; about a second."""

import torch
from torch import nn

from pared import Batch, Growing, TrainConfig, grow, insert
from pared.growth import check_growth, grown_structure, makers, newest, places_of, values_at, with_values


def mirrored(model, structure, batch, loss, counts, seed=0):
    """New units with minus the inputs of the units whose weights are longest, and no outputs yet: nothing changes."""
    check_growth(structure, batch, counts)
    new, grown = insert(model, structure, counts, seed), grown_structure(structure, counts)
    units = newest(grown, counts)
    for name, count in counts.items():
        old = values_at(model, places_of(model, structure[name], range(structure[name].width), "in"))
        longest = old.norm(dim=1).argsort(descending=True)[torch.arange(count) % len(old)]
        new = with_values(new, [(makers(new, grown, units, name), -old[longest])])
    return new


class Data:
    """A product of sines."""

    def __init__(self) -> None:
        x = torch.rand(400, 2, generator=torch.Generator().manual_seed(0)) * 6 - 3
        y = x.sin().prod(1, keepdim=True)
        self.train, self.validation = Batch(x[::2], y[::2]), Batch(x[1::2], y[1::2])


model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
grown = grow(model, Data(), TrainConfig(epochs=100), mirrored, Growing({"0": 4}, every=20, up_to={"0": 16}))
print(f"{grown.structure['0'].width} units, validation loss {grown.fits[-1].curves['validation'][-1]:.4f}")
