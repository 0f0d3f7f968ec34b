"""What others may read of commands, options and model names: neither secrets nor where files lie on this machine."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HUB_NAMES = {"smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""What models that come with a package are called on the Hub."""

URL = re.compile(r"(?P<scheme>\w://)(?P<authority>[^/?#\s]*)(?P<path>[^?\s]*)(?P<query>\?\S*)?")
PATH = re.compile(r"(?P<before>([^\s/~=]+=)*)(file:(//[^/\s]*)?/|/|~[^/\s]*/)(?P<path>[^\n/]*/+[^\n]+)")
SHORT_OPTION = re.compile(r"(?P<option>-[A-Za-z])(?P<value>[/~f].*)")


def without_secrets(value: Any) -> Any:
    """An argument, or a list or dict of them, with its URLs less user, password and the values of their queries."""
    if isinstance(value, str):
        return URL.sub(_clean_url, value)
    if isinstance(value, dict):
        return {key: without_secrets(one) for key, one in value.items()}
    return [without_secrets(one) for one in value] if isinstance(value, list) else value


def _clean_url(url: re.Match[str]) -> str:
    host = url["authority"].rpartition("@")[2]  # a password may hold an @ of its own
    query = re.sub(r"([?&;])([^=&;]*=)?[^&;]+", lambda part: f"{part[1]}{part[2] or ''}***", url["query"] or "")
    return f"{url['scheme']}{host}{url['path']}{query}"


def line_without_secrets(line: str) -> str:
    """Of a command line, word by word: a URL ends where its word does, not at a quotation mark within."""
    if "://" not in line:
        return line
    try:
        return shlex.join(without_secrets(shlex.split(line)))
    except ValueError:  # no line that a shell would take
        return str(without_secrets(line))


def without_paths(value: Any) -> Any:
    """A value, or a list or dict of them, as strangers may read it: of an absolute path only the last part.

    The path may stand behind ``key=`` and be a ``file://`` URL. "/end" may be anything, such as a text that ends an
    answer.
    """
    if isinstance(value, dict):
        return {key: without_paths(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_paths(one) for one in value]
    found = PATH.fullmatch(value) if isinstance(value, str) else None
    return found["before"] + Path(found["path"]).name if found else value


def line_without_paths(line: str) -> str:
    """Of a command line, word by word; a short option may have its value glued on, as in ``-o/tmp/x``."""
    try:
        words = [SHORT_OPTION.fullmatch(word) or word for word in shlex.split(line)]
    except ValueError:  # no line that a shell would take
        return line
    return shlex.join(
        without_paths(word) if isinstance(word, str) else word["option"] + without_paths(word["value"])
        for word in words
    )


def shown_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a training as strangers may read them."""
    return {**without_paths(dict(settings)), "model": shown_model(settings["model"])}


def shown_model(name: str) -> str:
    """What a model is called where strangers read it: its id on the Hub, or the name of its folder without the path."""
    folder = Path(name).expanduser()
    if name in HUB_NAMES or not (folder.is_absolute() or folder.exists()):
        return HUB_NAMES.get(name, name)
    return folder.absolute().name or folder.resolve().name
