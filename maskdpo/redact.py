"""Commands, options and model names for other people: without secrets, and without paths of this machine."""

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HUB_NAMES = {"smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""Names on the Hub of models that a package contains."""

URL = re.compile(r"(?P<scheme>\w://)(?P<authority>[^/?#\s]*)(?P<path>[^?\s]*)(?P<query>\?\S*)?")
_NAME = "(api)?(key|token|secret|password|authorization|auth|sig|signature)"
SECRET = re.compile(rf"(^|[_-]){_NAME}$", re.IGNORECASE)
"""Names of options of plug-ins whose values are secrets."""
SECRET_WORD = re.compile(rf"(?<![?&;])\b(?P<key>(\w*_)?{_NAME})=.+", re.IGNORECASE)
HEADER = re.compile(r"--header([= ]|$)")
"""The option whose values are secrets, whatever their names."""
PATH = re.compile(r"(?P<before>([^\s/~=]+=)*)(file:(//[^/\s]*)?/|/|~[^/\s]*/)(?P<path>[^\n/]*/+[^\n]+)")
SHORT_OPTION = re.compile(r"(?P<option>-[A-Za-z])(?P<value>[/~f].*)")


def without_secrets(value: Any) -> Any:
    """An argument, or a list or dict of arguments, whose URLs have no user, no password and no values in the query."""
    if isinstance(value, str):
        return URL.sub(_clean_url, value)
    if isinstance(value, dict):
        return {key: _hidden(one) if SECRET.search(str(key)) else without_secrets(one) for key, one in value.items()}
    return [without_secrets(one) for one in value] if isinstance(value, list) else value


def _hidden(value: Any) -> Any:
    """A secret as its hash, which still tells whether two secrets are the same."""
    if not isinstance(value, str):
        return without_secrets(value)
    return value if value.startswith("sha256:") else f"sha256:{hashlib.sha256(value.encode()).hexdigest()[:12]}"


def _clean_url(url: re.Match[str]) -> str:
    host = url["authority"].rpartition("@")[2]  # a password may contain an @
    query = re.sub(r"([?&;])([^=&;]*=)?[^&;]+", lambda part: f"{part[1]}{part[2] or ''}***", url["query"] or "")
    return f"{url['scheme']}{host}{url['path']}{query}"


def line_without_secrets(line: str) -> str:
    """A command line without secrets. It is split into words, so that a URL ends with its word, not at a quote."""
    if "://" not in line and "{" not in line and not SECRET_WORD.search(line) and not HEADER.search(line):
        return line
    try:
        words = _without_headers(without_secrets([_clean_json(word) for word in shlex.split(line)]))
        return shlex.join(SECRET_WORD.sub(lambda found: f"{found['key']}=***", word) for word in words)
    except ValueError:  # not a valid line of a shell
        return str(without_secrets(line))


def _clean_json(word: str) -> str:
    """A word ``name={...}`` without the secrets inside the JSON object."""
    name, equals, value = word.partition("=")
    if not equals or not value.startswith(("{", "[")):
        return word
    try:
        found = json.loads(value)
    except ValueError:
        return word
    cleaned = without_secrets(found)
    return word if cleaned == found else f"{name}={json.dumps(cleaned, ensure_ascii=False)}"


def _without_headers(words: list[str]) -> list[str]:
    """The words of a command line without the values of headers."""
    return [
        re.sub(r"=.*", "=***", word, flags=re.DOTALL)
        if before == "--header"
        else re.sub(r"(--header=[^=]*)=.*", r"\1=***", word, flags=re.DOTALL)
        for before, word in zip(["", *words], words, strict=False)
    ]


def without_paths(value: Any) -> Any:
    """A value, or a list or dict of values, with only the last part of every absolute path.

    A path may follow ``key=`` and may be a ``file://`` URL. A text such as "/end", without a second slash, is no path:
    it may be a text that ends an answer.
    """
    if isinstance(value, dict):
        return {key: without_paths(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_paths(one) for one in value]
    found = PATH.fullmatch(value) if isinstance(value, str) else None
    return found["before"] + Path(found["path"]).name if found else value


def line_without_paths(line: str) -> str:
    """A command line without paths. The value of a short option may follow without a space, as in ``-o/tmp/x``."""
    try:
        words = [SHORT_OPTION.fullmatch(word) or word for word in shlex.split(line)]
    except ValueError:  # not a valid line of a shell
        return line
    return shlex.join(
        without_paths(word) if isinstance(word, str) else word["option"] + without_paths(word["value"])
        for word in words
    )


def shown_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a training without paths of this machine."""
    names = {key: settings[key] for key in ("model", "reference") if settings.get(key)}
    return {**without_paths(dict(settings)), **{key: shown_model(name) for key, name in names.items()}}


def shown_model(name: str) -> str:
    """The public name of a model: its id on the Hub, or the name of its folder without the path."""
    folder = Path(name).expanduser()
    if name in HUB_NAMES or not (folder.is_absolute() or folder.exists()):
        return HUB_NAMES.get(name, name)
    return folder.absolute().name or folder.resolve().name
