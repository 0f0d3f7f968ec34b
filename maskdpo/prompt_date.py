"""The date that a chat template writes into prompts: one for a whole run, and the same when the run is continued."""

from datetime import date
from pathlib import Path
from typing import Protocol, runtime_checkable

from maskdpo.errors import InputError
from maskdpo.run_record import recorded_option


@runtime_checkable
class Dated(Protocol):
    """What renders prompts by a chat template, which may write the date of the day into them."""

    today: date | None

    def writes_date(self) -> bool: ...


def recorded_date(file: Path) -> date | None:
    """The date that the run of this record writes into prompts; None where there is no record, or none in it."""
    written = recorded_option(file, "prompt_date")
    try:
        return date.fromisoformat(written) if written is not None else None
    except (TypeError, ValueError):
        raise InputError(f"{written!r} is no date", path=file, field="options.prompt_date") from None


def fix_date(renderer: Dated, file: Path) -> dict[str, str]:
    """Have one date in all prompts of a run, where the chat template writes any: that of the day on which it began.

    Args:
        file: the run's record.

    Returns:
        What goes into the options of the record.
    """
    if not renderer.writes_date():
        return {}
    renderer.today = recorded_date(file) or date.today()
    return {"prompt_date": renderer.today.isoformat()}
