"""Trainings that pause, for the tests of every engine."""

import copy
import io
from dataclasses import asdict, replace

import torch

from pared.training.fit import Midway


def in_stretches(train, start, parts, config):
    """A training that pauses after every epoch, its state taken through a file each time."""
    found, pauses = train(start, parts, config, pause=0.0), 0
    while found.midway:
        model = copy.deepcopy(start)
        model.load_state_dict(found.model.state_dict())
        stored = io.BytesIO()
        torch.save((found.optimiser_state, asdict(found.midway)), stored)
        stored.seek(0)
        state, midway = torch.load(stored, weights_only=True)
        found = replace(found, model=model, optimiser_state=state, midway=Midway(**midway))
        found, pauses = train(start, parts, config, resume=found, pause=0.0), pauses + 1
    assert pauses == len(found.curves["train"]) - 1
    return found


def assert_equal_fits(one, two):
    """Equal bit by bit."""
    assert one.curves == two.curves
    for name, weight in two.model.state_dict().items():
        assert torch.equal(one.model.state_dict()[name], weight)
    assert str(one.optimiser_state) == str(two.optimiser_state)
    assert (one.seed, one.midway, one.states) == (two.seed, None, two.states)
