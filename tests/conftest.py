"""What every test may count on."""

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _interrupts() -> Iterator[None]:
    """Ctrl-C interrupts, in this process and those it starts, though whoever started the tests may have turned it off.

    `pared run` ends deaf to it, as its process ends with it; the tests' process goes on.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
