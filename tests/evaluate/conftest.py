"""One browser for all tests of the pages."""

from collections.abc import Iterator

import pytest
from browser import CHROMIUM, DRIVER, MISSING, Browser, chromium


@pytest.fixture(scope="session")
def shared_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if not (CHROMIUM and DRIVER):
        pytest.skip(MISSING)
    pytest.importorskip("selenium", reason="needs selenium: pip install selenium")
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(shared_browser: Browser) -> Iterator[Browser]:
    """No test may leave an error or a policy violation in the console, nor have asked the network."""
    shared_browser.complaints()
    yield shared_browser
    assert shared_browser.complaints() == []
    assert shared_browser.js("return performance.getEntriesByType('resource').length") == 0
