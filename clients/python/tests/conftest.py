"""What the tests share."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from scripted import Scripted  # noqa: E402


@pytest.fixture
def manager():
    """Starts scripted managers, and stops them when the test is over."""
    started = []

    def start(script, **options):
        started.append(Scripted(script, **options))
        return started[-1]

    yield start
    for each in started:
        each.stop()
