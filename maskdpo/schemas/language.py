"""Language tags as BCP 47 (RFC 5646) writes them: ``en``, ``pt-BR``, ``zh-Hant``."""

import re
from typing import Annotated

from pydantic import AfterValidator

_TAG = re.compile(
    r"(?P<language>[a-z]{2,3})(?P<extended>(?:-[a-z]{3}){0,3})(?P<script>-[a-z]{4})?(?P<region>-(?:[a-z]{2}|\d{3}))?"
    r"(?P<rest>(?:-(?:[a-z\d]{5,8}|\d[a-z\d]{3}))*(?:-[a-wy-z\d](?:-[a-z\d]{2,8})+)*(?:-x(?:-[a-z\d]{1,8})+)?)",
    re.IGNORECASE,
)


def language_tag(text: str) -> str:
    """The tag in its usual letters: ``PT_br`` is ``pt-BR``.

    Raises:
        ValueError: the text is not formed like a language tag.
    """
    found = _TAG.fullmatch(text.strip().replace("_", "-"))
    if found is None:
        raise ValueError(f"{text!r} is no language tag (BCP 47), such as en, fr, pt-BR or zh-Hant")
    script = (found["script"] or "").title()
    return (
        f"{found['language'].lower()}{found['extended'].lower()}{script}"
        f"{(found['region'] or '').upper()}{found['rest'].lower()}"
    )


def primary(tag: str) -> str:
    """The language of a tag without script and region: ``pt`` of ``pt-BR``."""
    return tag.partition("-")[0]


Language = Annotated[str, AfterValidator(language_tag)]
"""A language tag in its usual letters; any case and ``_`` for ``-`` are accepted."""
