"""A Boltzmann machine that grows by itself on bars and stripes, judged by its exact likelihood; some seconds."""

import math

from pared.data import bars_and_stripes
from pared.growth import UnitByUnit, fit_endless
from pared.models import OrderedRBM, log_likelihood
from pared.training import ContrastiveConfig

pictures = bars_and_stripes(3)
machine = OrderedRBM(9, hidden=1, beta=1.1)
grown = fit_endless(machine, pictures, ContrastiveConfig(updates=1000, gibbs=2), UnitByUnit(every=10, probable=0.1))
for name, each in (("before", machine), ("after", grown.model)):
    units, surprise = len(each.bias), -log_likelihood(each, pictures.float()).mean().item()
    print(f"{name}: {units} units, {surprise:.2f} nats a picture, {math.log(len(pictures)):.2f} at best")
