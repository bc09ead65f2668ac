"""Search: from a blank page to the best network to start from, honestly and resumably."""

from pared.search.actors import Cluster
from pared.search.defaults import default_space, series_space, table_space
from pared.search.space import Categorical, Conditional, Float, Int, Point, PowerOfTwo, Space, grid
from pared.search.stopping import Stopping
from pared.search.story import Found, SearchSettings, search
from pared.search.trials import SearchError, Trial
from pared.search.workers import Queue

__all__ = [
    "Categorical",
    "Cluster",
    "Conditional",
    "Float",
    "Found",
    "Int",
    "Point",
    "PowerOfTwo",
    "Queue",
    "SearchError",
    "SearchSettings",
    "Space",
    "Stopping",
    "Trial",
    "default_space",
    "grid",
    "search",
    "series_space",
    "table_space",
]
