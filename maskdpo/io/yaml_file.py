"""YAML files that people write: files of settings and pipelines. Problems are errors with the file and the line."""

import json
from pathlib import Path
from types import NoneType
from typing import Any

import yaml

from maskdpo.errors import InputError
from maskdpo.io.read import open_input


class _Loader(yaml.SafeLoader):
    """Refuses what YAML forbids and PyYAML accepts: a key that is there twice, of which PyYAML would take the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} is there twice", problem_mark=key.start_mark)
            seen.add((key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key))
        return node


def read_yaml(file: Path) -> dict[Any, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping."""
    with open_input(file) as handle:
        try:
            values = yaml.load(handle, _Loader)
        except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
            # all but the first: what PyYAML stumbles over in a value, such as the 32nd of a month
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else None
            problem = getattr(error, "problem", f"{error}; put quotes around a text that looks like a date")
            raise InputError(f"not valid YAML: {problem}", path=file, line=line) from None
    if not isinstance(values, dict | NoneType):
        raise InputError("must be a mapping of settings, such as 'beta: 0.1'", path=file)
    try:
        json.dumps(values, default=str, skipkeys=True)
    except (ValueError, RecursionError):
        raise InputError("is nested too deeply, or an anchor contains itself", path=file) from None
    return values or {}
