"""Every architecture times everything that maskdpo does with a model: right to rounding, or refused in words."""

import pytest
from architectures import ARCHITECTURES, CORE
from bench import Bench
from checks import CHECKS
from page import PAGE, page_of, renew, row, rows_of

from maskdpo.errors import UserError

TRAINING = set(CHECKS) - {"sampling"}


def expected_refusal(name: str, check: str) -> str | None:
    """Words of the refusal that the table of architectures names."""
    refused = ARCHITECTURES[name].refused
    kinds = (check, "training" if check in TRAINING else check, "all")
    return next((refused[kind] for kind in kinds if kind in refused), None)


def cell(check: str, bench: Bench) -> str:
    """The words of the cell, after the expected outcome has come about."""
    words = expected_refusal(bench.name, check)
    if words is None:
        return CHECKS[check](bench)
    with pytest.raises(UserError) as refusal:
        CHECKS[check](bench)
    message = str(refusal.value)
    assert words in message
    assert "\n" not in message
    return "refused"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in CORE else [pytest.mark.slow]) for name in ARCHITECTURES]
)
def test_right_or_refused(name: str, bench: Bench, subtests: pytest.Subtests, request: pytest.FixtureRequest) -> None:
    """One test an architecture, because the checks share its runs; each check fails on its own."""
    cells: dict[str, str] = {}
    for check in CHECKS:
        with subtests.test(check):
            cells[check] = cell(check, bench)
    if cells.keys() != CHECKS.keys():
        pytest.fail(f"{name}: see the checks")
    layout = "" if cells["whole"] == "refused" else f"`{bench.whole.layout}`"
    architecture = ARCHITECTURES[name]
    notes = "; ".join(dict.fromkeys([architecture.note, *architecture.refused.values()])).strip("; ")
    line = row(name, layout, cells, notes)
    if request.config.getoption("--renew"):
        renew(name, line)
    assert rows_of(PAGE.read_text(encoding="utf-8")).get(name) == line, "docs/models.md is stale: see its first lines"


def test_the_page_is_whole(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--renew"):
        pytest.skip("the page is being written")
    text = PAGE.read_text(encoding="utf-8")
    assert list(rows_of(text)) == list(ARCHITECTURES)
    assert text == page_of(rows_of(text))


def test_at_least_thirty_architectures() -> None:
    assert len(ARCHITECTURES) >= 30
