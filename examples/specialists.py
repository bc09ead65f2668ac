"""A classifier finds out what it confuses and gets units for just that; a few seconds."""

from torch.nn.functional import cross_entropy

from pared import MLP, TrainConfig, fit
from pared.data import families
from pared.growth import confusable, confusion, fit_specialists, specialise
from pared.types import Batch


class Data:
    """24 classes: the family is easy to see, the member hard."""

    def __init__(self) -> None:
        parts = (families(1500, seed=seed) for seed in (0, 1, 2))
        self.train, self.validation, self.held = (Batch(part.x.float(), part.y) for part in parts)


data, config = Data(), TrainConfig(epochs=15, lr=3e-3)
known = fit(MLP(6, (48, 24), 24, "relu", seed=0), data, config, cross_entropy)
groups = confusable(confusion(known.model, data.held), 6)
start = specialise(known.model, reads="layers.2", groups=groups, x=data.train.x, width=24)  # computes what it did
found, _ = fit_specialists(start, data, config, head="layers.4")
x, y = data.validation
accuracy = [(model.eval()(x).argmax(1) == y).double().mean() for model in (known.model, found)]
print(f"groups {groups}: accuracy {accuracy[0]:.1%} before, {accuracy[1]:.1%} with specialists")
