"""What every test may count on."""

import signal
from collections.abc import Iterator

import pytest

from growing import ZOO
from kinds import KINDS
from zoo import PROBES

PLAIN = {"mlp", "lstm", "Linear", "LSTM"}
"""Kinds of network that the fast suite tries; the others are for the slow one."""
NAMES = KINDS.keys() | ZOO.keys() | PROBES.keys()
OF_KINDS = {"test_signals.py", "test_testing.py", "test_grow.py", "test_optimiser.py"}
"""Files whose tests are about any kind of network, besides the contracts."""


OF_ALL = {"ablation", "activation", "junk", "magnitude", "random", "taylor"}
"""Criteria that the fast suite tries on recurrent networks, too."""
LONGEST = {"test_random.py", "test_kill.py", "test_examples.py"}
"""Files of few tests that take minutes; begun last, they would keep one process busy and the other waiting."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        of_kinds = item.path.parent.name == "contracts" or item.path.name in OF_KINDS
        if of_kinds and {parameters.get("name"), parameters.get("network")} & (NAMES - PLAIN):
            item.add_marker(pytest.mark.slow)
        criterion, on_lstm = parameters.get("criterion"), parameters.get("network") == "lstm"
        if isinstance(criterion, str) and (criterion == "reranked" or (on_lstm and criterion not in OF_ALL)):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(autouse=True)
def _interrupts() -> Iterator[None]:
    """Ctrl-C interrupts, in this process and those it starts, though whoever started the tests may have turned it off.

    `pared run` ends deaf to it, as its process ends with it; the tests' process goes on.
    """
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
