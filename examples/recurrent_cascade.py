"""Units with loops onto themselves learn which symbols Reber's grammar allows next; well under a second."""

from pared import CascadeConfig, fit_cascade
from pared.data import reber

train, test = reber(32, 40, seed=0), reber(100, 40, seed=1)
grown = fit_cascade(train, CascadeConfig(recurrent=True))
right = ((grown.model(test.x) > 0) == (test.y > 0)).all(-1).double().mean()
print(f"{len(grown.model.incoming)} units, all next symbols right after {right:.1%} of the steps")
