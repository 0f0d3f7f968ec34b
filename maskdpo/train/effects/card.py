"""The part of a model card that says what else the training has changed."""

import re
from pathlib import Path

from maskdpo.console import counted
from maskdpo.hub.header import CARD
from maskdpo.io import atomic_write
from maskdpo.run_record import META_IN_FOLDER, read_meta
from maskdpo.schemas.effects import SideEffects
from maskdpo.verdicts.effects import COLUMNS, rows_of

TITLE = "## Side effects"
_PART = re.compile(rf"^{TITLE}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
_NEXT = "## Citation"


def write_into_card(model: str, found: SideEffects) -> bool:
    """Put the table into the card of a model that ``train`` has written, in place of an earlier one.

    Returns:
        Whether there is such a card: not for a model on the Hub, one of another tool, or a card without its last part.
    """
    folder = Path(model).expanduser()
    card, meta = folder / CARD, read_meta(folder / META_IN_FOLDER) if (folder / META_IN_FOLDER).exists() else None
    if meta is None or meta.command != "train" or not card.is_file():
        return False
    text = _PART.sub("", card.read_text(encoding="utf-8"))
    at = text.rfind(_NEXT)
    if at < 0:
        return False
    with atomic_write(card) as file:
        file.write(f"{text[:at]}{_part(found)}\n\n{text[at:]}".encode())
    return True


def _part(found: SideEffects) -> str:
    lines = [
        TITLE,
        "",
        f"{counted(found.answers, 'answer')} of this model, and as many of the model before the training, to "
        f"{counted(found.prompts, 'general prompt')}, which the training was not about (`maskdpo side-effects`):",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
        *(f"| {' | '.join(row)} |" for row in rows_of(found)),
    ]
    return "\n".join(lines)
