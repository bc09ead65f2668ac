"""What every test may count on."""

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _interrupts() -> Iterator[None]:
    """`pared run` ends deaf to Ctrl-C, as its process ends with it; the tests' process goes on."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)
