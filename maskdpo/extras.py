"""Packages: optional ones are imported where used, a missing one is answered with the command that installs it, and the
versions of those that decide a result are recorded."""

import importlib
import importlib.metadata
import platform
from types import ModuleType

from maskdpo.errors import UserError

RECORDED = ("maskdpo", "torch", "transformers", "tokenizers", "vllm", "openai", "sentencex", "spacy", "nltk")


def versions() -> dict[str, str]:
    """Python's and those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in RECORDED:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def require(module: str, *, install: str, purpose: str) -> ModuleType:
    """Import ``module`` or say which command brings it.

    Args:
        module: the module to import, such as ``openai``.
        install: what to hand to pip, such as ``"maskdpo[openai]"``.
        purpose: what needs it, such as ``--backend openai``.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split(".")[0] != error.name.split(".")[0]:
            raise  # the package is there, something that it needs is not: show that
        raise UserError(f"{purpose} needs the package {module}. Install it with: pip install {install}") from None
