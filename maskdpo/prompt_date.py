"""The date that a chat template writes into prompts: one for a whole run, and the same when the run is continued.

Templates ask for the date of today with ``strftime_now``. The date is written into the template instead, so that it can
be recorded.
"""

import json
import re
from datetime import date
from pathlib import Path
from typing import Protocol, runtime_checkable

from maskdpo.errors import InputError, UserError
from maskdpo.run_record import recorded_option

ASKS_FOR_DATE = re.compile(r"""strftime_now\s*\(\s*(["'])(.*?)\1\s*\)""")


def writes_date(template: object) -> bool:
    """Whether a chat template asks for the date of today."""
    return "strftime_now" in str(template)


def with_date(template: str, today: date | None) -> str:
    """A chat template with the date in place of the calls that ask for it.

    Raises:
        UserError: the template asks for the date in another way, which cannot be recorded.
    """
    day = today or date.today()
    written = ASKS_FOR_DATE.sub(lambda call: json.dumps(day.strftime(call[2])), template)
    if re.search(r"strftime_now\s*\(", written):
        raise UserError("the chat template asks for the date in a way that cannot be recorded")
    return written


@runtime_checkable
class Dated(Protocol):
    """Anything that renders prompts by a chat template, which may write the date of today into them."""

    today: date | None

    def writes_date(self) -> bool: ...


def recorded_date(file: Path) -> date | None:
    """The date that a run writes into prompts, from its record; None where there is no record, or no date in it."""
    written = recorded_option(file, "prompt_date")
    try:
        return date.fromisoformat(written) if written is not None else None
    except (TypeError, ValueError):
        raise InputError(f"{written!r} is no date", path=file, field="options.prompt_date") from None


def fix_date(renderer: Dated, file: Path) -> dict[str, str]:
    """Set the date for all prompts of a run, if the chat template writes one: the day on which the run began.

    Args:
        file: the record of the run.

    Returns:
        The options to record.
    """
    if not renderer.writes_date():
        return {}
    renderer.today = recorded_date(file) or date.today()
    return {"prompt_date": renderer.today.isoformat()}
