"""What every test may count on."""

import signal
from collections.abc import Iterator

import pytest

from kinds import KINDS

PLAIN = {"mlp", "lstm"}
"""Kinds of network that the fast suite tries; the others are for the slow one."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        of_kinds = item.path.parent.name == "contracts" or item.path.name == "test_signals.py"
        if of_kinds and {parameters.get("name"), parameters.get("network")} & (KINDS.keys() - PLAIN):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _interrupts() -> Iterator[None]:
    """Ctrl-C interrupts, in this process and those it starts, though whoever started the tests may have turned it off.

    `pared run` ends deaf to it, as its process ends with it; the tests' process goes on.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
