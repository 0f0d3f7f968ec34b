"""What the splitter ``markdown`` knows of languages beyond sentencex: abbreviations, ordinals, particles.

An abbreviation stands here if no sentence ends with it as a rule, because something must follow: a title, "p. ex.".
"""

import re
from dataclasses import dataclass
from functools import cache

from maskdpo.schemas.language import primary

_LATIN_TITLES = "Dr Mr Mrs Ms Prof St"
_ABBREVIATIONS = {
    "ar": "د أ ص",
    "cs": "např tzv tj ul č str sv",
    "da": "f eks bl ca nr fx",
    "de": "z d u o s v n bzw ca Nr Abs Art S Bd Hrsg Abb Tab Vgl vgl Mio Mrd rd bspw sog evtl inkl zzgl geb gest "
    "Hl hl Co",
    "en": "excl incl esp approx viz",
    "es": "Sr Sra Srta Sres Dra D Dña Ud Uds Lic Ing Av Avda aprox pág "
    "págs núm vol cap fig art ej p a d EE Gral Sto Sta",
    "fr": "M MM Mme Mlle Mgr Pr Me Ste av apr cf env vol art al éd p pp ex chap fig",
    "hi": "डॉ डा प्रो पं कि मी सं रु",
    "it": "Sig Sigg Dott Ing Avv Mons S pp p cfr es art n vol ca a d",
    "nl": "dhr mevr dr prof ir ing bijv ca nr blz d o a",
    "pl": "prof dr hab inż mgr ul al np tzw tj ok św",
    "pt": "Sr Sra Dra Profa Av Eng S p pp cap ex núm aprox art vol a d",
    "ru": "ул просп им см См ср Ср рис табл стр ок акад проф тыс млн млрд гл ст",
    "sv": "t ex bl ca nr s k",
    "uk": "вул ім див рис табл стор бл акад проф тис млн млрд",
}
_ORDINAL = {
    "de": r"\b(?:[AaIi]m|[Vv]om|[Zz]u[mr]|[Bb]eim|[Dd](?:er|ie|as|en|em|es)|[Ss]eit|[Bb]is|(?:[Ss]|[Ee])eine?\w?)"
    r"\s\d{1,3}\.\s*$",  # "im 19. Jahrhundert"
}
_PARTICLE = {"ja": r"\s*(?:と(?!ころ|ても|き|に)|って|を|など|、)"}  # what follows a quotation inside a sentence
_ENDS = {
    "de": r"\b[IVX]+\.(?=\s(?:Er|Sie|Es|Der|Die|Das|Dies\w*|Ihr\w*|Sein\w*|Im|Am|Nach|Danach)\b)",  # "Ludwig II. Er"
    "ru": r"\d г\.(?=\s[А-ЯЁ][а-яё])",  # "in the year 1799."
    "uk": r"\d р\.(?=\s[А-ЯІЇЄҐ][а-яіїєґ])",
}
_INITIAL = r"|(?<![\w.])[A-Z](?=\.\s*$)"  # sentencex knows initials in English only


@dataclass(frozen=True, slots=True)
class Rules:
    """The patterns of a language; None where it has none."""

    no_end: re.Pattern[str] | None = None
    """Found at the end of a text that ends no sentence: an abbreviation, an initial or an ordinal."""
    missed: re.Pattern[str] | None = None
    """Found where a sentence ends and sentencex sees no end."""
    particle: re.Pattern[str] | None = None
    """Matches what follows a quotation that is only a part of its sentence."""


def code(tag: str) -> str:
    """The language code for sentencex, which cuts languages that it does not know as English."""
    language = primary(tag)
    return "en" if language == "und" else language


@cache
def rules(language: str) -> Rules:
    """What is known of a language beyond sentencex."""
    words = "|".join(_ABBREVIATIONS.get(language, "").split())
    if language != "en":
        words += ("|" if words else "") + "|".join(_LATIN_TITLES.split()) + _INITIAL
    ordinal = f"|{_ORDINAL[language]}" if language in _ORDINAL else ""
    return Rules(
        re.compile(rf"(?<!\w)(?:{words})\.\s*$" + ordinal),
        re.compile(_ENDS[language]) if language in _ENDS else None,
        re.compile(_PARTICLE[language]) if language in _PARTICLE else None,
    )
