"""Every architecture times everything that maskdpo does with a model: right to rounding, or refused in words."""

from collections.abc import Callable

import pytest
from architectures import ARCHITECTURES
from bench import Bench
from checks import CHECKS
from page import PAGE, page_of, renew, row, rows_of

from maskdpo.errors import UserError

NAMES = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ARCHITECTURES]
TRAINING = set(CHECKS) - {"sampling"}

Benches = Callable[[str], Bench]


def expected_refusal(name: str, check: str) -> str | None:
    """Words of the refusal that the table of architectures names."""
    refused = ARCHITECTURES[name].refused
    kinds = (check, "training" if check in TRAINING else check, "all")
    return next((refused[kind] for kind in kinds if kind in refused), None)


def cell(name: str, check: str, benches: Benches) -> str:
    """The words of the cell, after the expected outcome has come about."""
    words = expected_refusal(name, check)
    if words is None:
        return CHECKS[check](benches(name))
    with pytest.raises(UserError) as refusal:
        CHECKS[check](benches(name))
    message = str(refusal.value)
    assert words in message
    assert "\n" not in message
    return "refused"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("check", CHECKS)
def test_right_or_refused(name: str, check: str, bench: Benches) -> None:
    CELLS[name, check] = cell(name, check, bench)


CELLS: dict[tuple[str, str], str] = {}
"""What the tests above found."""


@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_what_was_measured(name: str, bench: Benches, request: pytest.FixtureRequest) -> None:
    for check in CHECKS:
        if (name, check) not in CELLS:
            CELLS[name, check] = cell(name, check, bench)
    cells = {check: CELLS[name, check] for check in CHECKS}
    layout = "" if cells["whole"] == "refused" else f"`{bench(name).whole.layout}`"
    architecture = ARCHITECTURES[name]
    notes = "; ".join(dict.fromkeys([architecture.note, *architecture.refused.values()])).strip("; ")
    line = row(name, layout, cells, notes)
    if request.config.getoption("--renew"):
        renew(name, line)
    assert rows_of(PAGE.read_text(encoding="utf-8")).get(name) == line, "docs/models.md is stale: see its last lines"


def test_the_page_is_whole(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--renew"):
        pytest.skip("the page is being written")
    text = PAGE.read_text(encoding="utf-8")
    assert list(rows_of(text)) == list(ARCHITECTURES)
    assert text == page_of(rows_of(text))


def test_at_least_thirty_architectures() -> None:
    assert len(ARCHITECTURES) >= 30
