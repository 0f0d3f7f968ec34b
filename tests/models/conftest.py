"""What the tests of this folder share: the option that renews the page, and the bench of an architecture."""

from pathlib import Path

import pytest
import torch
from attempts import draw_no_curves
from bench import Bench
from transformers.utils import logging


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--renew", action="store_true", help="write what was measured into docs/models.md")


@pytest.fixture
def bench(name: str, tmp_path: Path) -> Bench:
    """Of the architecture that the test is about."""
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    draw_no_curves()
    return Bench(name, tmp_path)
