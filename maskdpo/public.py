"""What others may read of commands, options and model names: neither secrets nor where files lie on this machine."""

import re
import shlex
from pathlib import Path
from typing import Any

HUB_NAMES = {"smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""What models that come with a package are called on the Hub."""

URL = re.compile(r"(?P<scheme>\w://)(?P<authority>[^/?#\s]*)(?P<path>[^?\s]*)(?P<query>\?\S*)?")


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
    """A value, or a list or dict of them, as strangers may read it: of an absolute path only the last part."""
    if isinstance(value, dict):
        return {key: without_paths(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_paths(one) for one in value]
    absolute = isinstance(value, str) and value.startswith(("/", "~/")) and "\n" not in value
    # "/end" may be anything, such as a text that ends an answer
    return Path(value).name if absolute and len(Path(value).parts) > 2 else value


def line_without_paths(line: str) -> str:
    """Of a command line, word by word."""
    try:
        words = [word.rpartition("=") if word.startswith("--") else ("", "", word) for word in shlex.split(line)]
    except ValueError:  # no line that a shell would take
        return line
    return shlex.join(f"{flag}{sign}{without_paths(value)}" for flag, sign, value in words)


def shown_model(name: str) -> str:
    """What a model is called where strangers read it: its id on the Hub, or the name of its folder without the path."""
    folder = Path(name).expanduser()
    if name in HUB_NAMES or not (folder.is_absolute() or folder.exists()):
        return HUB_NAMES.get(name, name)
    return folder.absolute().name or folder.resolve().name
