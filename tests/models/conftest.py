"""What the tests of this folder share: the option that renews the page, and one set of benches a process."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from bench import Bench
from forks import draw_no_curves
from transformers.utils import logging


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--renew", action="store_true", help="write what was measured into docs/models.md")


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bench]:
    """The bench of an architecture; its runs are made once and serve several checks."""
    torch.set_num_threads(1)
    draw_no_curves()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return cache(lambda name: Bench(name, tmp_path_factory.mktemp(name)))
