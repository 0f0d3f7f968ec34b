"""The language of a text, for prompts that do not name it, and the English names of languages."""

import re
from collections import Counter
from functools import cache

from maskdpo.schemas.language import primary

UNKNOWN = "und"
"""The tag of texts whose language is not known ("undetermined" in BCP 47)."""

_READ = 4000  # characters of a text that are looked at
_LETTER = re.compile(r"[^\W\d_]")
_WORD = re.compile(r"[^\W\d_]+(?:[\u0900-\u0963]*[^\W\d_]*)*")
_SCRIPTS = {
    "Kana": "\u3041-\u30ff",
    "Hani": "\u3400-\u9fff",
    "Hang": "\u1100-\u11ff\uac00-\ud7a3",
    "Arab": "\u0620-\u064a\u0671-\u06d3\u06fa-\u06fc",
    "Deva": "\u0904-\u0939\u0958-\u0961",
    "Cyrl": "\u0400-\u052f",
    "Grek": "\u0370-\u03ff",
    "Hebr": "\u05d0-\u05ea",
    "Thai": "\u0e01-\u0e3a",
    "Armn": "\u0531-\u0587",
    "Geor": "\u10a0-\u10ff",
    "Beng": "\u0985-\u09b9",
    "Guru": "\u0a05-\u0a39",
    "Gujr": "\u0a85-\u0ab9",
    "Taml": "\u0b85-\u0bb9",
    "Telu": "\u0c05-\u0c39",
    "Knda": "\u0c85-\u0cb9",
    "Mlym": "\u0d05-\u0d39",
    "Sinh": "\u0d85-\u0dc6",
    "Khmr": "\u1780-\u17b3",
    "Laoo": "\u0e81-\u0eae",
    "Mymr": "\u1000-\u102a",
    "Ethi": "\u1200-\u135a",
}
_OTHER = re.compile("".join(["[", *_SCRIPTS.values(), "]"]))
_SCRIPT = {name: re.compile(f"[{letters}]") for name, letters in _SCRIPTS.items()}
_ONE_LANGUAGE = {
    "Hani": "zh",
    "Hang": "ko",
    "Grek": "el",
    "Thai": "th",
    "Armn": "hy",
    "Geor": "ka",
    "Guru": "pa",
    "Gujr": "gu",
    "Taml": "ta",
    "Telu": "te",
    "Knda": "kn",
    "Mlym": "ml",
    "Sinh": "si",
    "Khmr": "km",
    "Laoo": "lo",
}
"""Scripts that nearly all texts use for one language."""
_LETTERS = {
    "Arab": (
        ("ug", "ۇۆۈۋې"),
        ("ps", "ښځټډړ"),
        ("sd", "ڄڃڍ"),
        ("ckb", "ڕڵێ"),
        (UNKNOWN, "ڠڤڽ"),
        ("ur", "ٹڈڑںے"),
        ("fa", "کی"),
    ),
    "Cyrl": (
        ("kk", "ұ"),
        (UNKNOWN, "ңқғҗҳҷәһӑӗҫҡҙӧӱӓӕҕҥӏ"),
        ("uk", "їєґ"),
        ("be", "ў"),
        ("mk", "ѓќѕ"),
        ("sr", "ђћ"),
        ("mn", "өү"),
        ("ru", "ыэё"),
    ),
    "Beng": (("as", "ৰৱ"),),
    "Hebr": (("yi", "ײױ"),),
}
"""Letters that tell the languages of a script apart, the first that occur."""
_ELSE = {"Arab": "ar", "Beng": "bn", "Hebr": "he", "Mymr": "my"}
_WORDS = {
    "en": "the of and to in is was that for it with as on by are from which this were has have its an be not they",
    "fr": "le la les à des du et est une dans que qui pour il elle en au aux par sur avec ce cette sont été pas plus",
    "es": "el la los las del y es una en que por con para su se como más fue está son al lo este pero también",
    "pt": "o os as da do dos das e é uma em que por com para não um na no mais foi seu são como ao também pela",
    "it": "il lo gli della di e è una in che per con del sono dal nel alla non più anche come si dei delle questo",
    "de": "der die das und ist in den von zu mit sich des ein eine auf für dem im nicht als auch wurde bei sie nach",
    "nl": "de het een en van is in op te dat die voor met zijn werd niet aan er ook als bij door naar wordt",
    "sv": "och att det som en är av på för med den till inte har ett om var från vid också blev",
    "da": "og at det er en af på for med den til ikke har et der som var fra ved også blev",
    "pl": "na jest się że do nie to jak po oraz był przez dla od są która który",
    "cs": "je se na že do ve byl jako pro od který která jsou také by po však",
    "tr": "ve bir bu ile için olarak olan da de en çok gibi sonra kadar daha ancak değil tarafından",
    "id": "yang dan di dari dengan untuk pada adalah ini itu dalam tidak oleh sebagai ke juga akan telah",
    "vi": "là của và các có được trong một cho không với những người này đã từ đến",
    "ro": "și în de la este un o cu pe care din pentru nu mai sunt fost al ca au",
    "hu": "az és hogy nem egy volt ez van meg mint azonban vagy már csak",
    "fi": "ja on ei se että oli hän mutta myös kuin joka ovat tai sekä",
    "ca": "els les amb és una que per del dels el la va ser més aquest són com",
    "gl": "da do das dos unha que para non foi como máis é pola",
    "nb": "og at det er en av på for med den til ikke har et som var fra ved også ble",
    "sk": "je sa na že do bol ako pre od ktorý ktorá sú tiež podľa však",
    "hbs": "je se na da su za od koji koja bio kao ili nije te",
    "af": "die van en in het is nie wat met vir om sy was deur ook aan",
    "ms": "dan yang di dengan untuk pada adalah ini itu dalam tidak oleh ialah telah akan juga",
    "et": "ja on ei et oli ta aga ka kui mis",
    "la": "et in est non cum ad ut qui quod sed ex ab sunt",
    "hi": "है हैं के में की का और से को एक यह था थे नहीं पर वह ने",
    "mr": "आहे आहेत आणि च्या मध्ये होते होता तो ती हे या",
    "ne": "छ छन् को मा र हो गर्न पनि भएको थियो",
    "bg": "са във като което беше към със която",
}
"""Frequent words. Neighbours of a language are here, so that a text of theirs is not taken for this language."""
_OF_SCRIPT = {"Deva": ("hi", "mr", "ne"), "Cyrl": ("bg",)}
_LATIN = tuple(language for language in _WORDS if language not in ("hi", "mr", "ne", "bg"))
_LEAST_SHARE = 0.15
"""Least share of the words of a text that are frequent words of its language."""
_MARGIN = 1.3
"""Least ratio of the frequent words of a language to those of the next one."""
_LEAST_WORDS = 3
"""Least number of different frequent words. Words of one ASCII letter do not count: they may be initials or options."""

_NAMED = """
af Afrikaans  am Amharic  ar Arabic  as Assamese  az Azerbaijani  be Belarusian  bg Bulgarian  bn Bengali
bs Bosnian  ca Catalan  cs Czech  cy Welsh  da Danish  de German  el Greek  en English  es Spanish  et Estonian
eu Basque  fa Persian  fi Finnish  fil Filipino  fr French  ga Irish  gl Galician  gu Gujarati  ha Hausa
he Hebrew  hi Hindi  hr Croatian  hu Hungarian  hy Armenian  id Indonesian  ig Igbo  is Icelandic  it Italian
ja Japanese  jv Javanese  ka Georgian  kk Kazakh  km Khmer  kn Kannada  ko Korean  lo Lao  lt Lithuanian
lv Latvian  mk Macedonian  ml Malayalam  mn Mongolian  mr Marathi  ms Malay  my Burmese  nb Norwegian  ne Nepali
nl Dutch  no Norwegian  or Odia  pa Punjabi  pl Polish  ps Pashto  pt Portuguese  ro Romanian  ru Russian
si Sinhala  sk Slovak  sl Slovenian  so Somali  sq Albanian  sr Serbian  sv Swedish  sw Swahili  ta Tamil
te Telugu  th Thai  tl Tagalog  tr Turkish  uk Ukrainian  ur Urdu  uz Uzbek  vi Vietnamese  yo Yoruba
zh Chinese  zu Zulu
"""
_NAMES = dict(line.split() for line in _NAMED.strip().replace("  ", "\n").splitlines())


def language_name(tag: str) -> str:
    """A language in English words: ``French``, ``Portuguese (pt-BR)``, ``the language fo (BCP 47)``."""
    if tag == UNKNOWN:
        return "a language that is not known"
    name = _NAMES.get(primary(tag))
    if name is None:
        return f"the language {tag} (BCP 47)"
    return name if tag == primary(tag) else f"{name} ({tag})"


def detect_language(text: str) -> str:
    """The language tag of a text, by its script, its letters and its frequent words; ``und`` where these do not tell.

    A text is Chinese where at least a fifth of its letters are Chinese characters (each is about one word), and
    likewise for other scripts than the Latin one. Short texts in Latin letters are ``und``.
    """
    text = text[:_READ]
    if not text.isascii() and (script := _script(text)):
        return _of_script(script, text)
    return _by_words(text, _LATIN, _LEAST_SHARE)


def _script(text: str) -> str | None:
    """The script other than Latin that at least a fifth of the letters have."""
    letters = len(_LETTER.findall(text))
    other = len(_OTHER.findall(text))
    if not letters or other / letters < 0.2:
        return None
    counts = {name: len(pattern.findall(text)) for name, pattern in _SCRIPT.items()}
    if counts["Kana"] * 10 >= counts["Kana"] + counts["Hani"] > 0:
        counts["Kana"] += counts["Hani"]  # Japanese is written in both
    name = max(counts, key=counts.__getitem__)
    return name if counts[name] / letters >= 0.2 else None


def _of_script(script: str, text: str) -> str:
    if script == "Kana":
        return "ja"
    if script in _ONE_LANGUAGE:
        return _ONE_LANGUAGE[script]
    for language, letters in _LETTERS.get(script, ()):
        if any(letter in text.lower() for letter in letters):
            return language
    if script in _OF_SCRIPT:
        return _by_words(text, _OF_SCRIPT[script], 0.0)
    return _ELSE.get(script, UNKNOWN)


def _by_words(text: str, languages: tuple[str, ...], least: float) -> str:
    """The language with the most frequent words, if it has clearly more of them than any other."""
    words = [word.lower() for word in _WORD.findall(text)]
    known = {word: languages_of for word in set(words) if (languages_of := _frequent().get(word))}
    counts = Counter(language for word in words for language in known.get(word, ()) if language in languages)
    (best, most), (_, second) = [*counts.most_common(2), (UNKNOWN, 0), (UNKNOWN, 0)][:2]
    different = sum(best in languages_of for languages_of in known.values())
    clear = different >= _LEAST_WORDS and most >= least * len(words) and most >= _MARGIN * second
    return best if clear and best in _NAMES else UNKNOWN


@cache
def _frequent() -> dict[str, tuple[str, ...]]:
    """The languages of each frequent word."""
    found: dict[str, tuple[str, ...]] = {}
    for language, words in _WORDS.items():
        for word in words.split():
            if len(word) == 1 and word.isascii():
                continue
            found[word] = (*found.get(word, ()), language)
    return found
