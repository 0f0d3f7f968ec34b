"""Packages: optional ones are imported where used, a missing one is answered with the command that installs it, and the
versions of those that decide a result are recorded."""

import importlib
import importlib.metadata
import platform
from functools import cache
from types import ModuleType

from maskdpo.errors import UserError

RECORDED = ("maskdpo", "torch", "transformers", "tokenizers", "vllm", "openai", "sentencex", "spacy", "nltk")

BROUGHT_BY = {"torch": "train", "matplotlib": "train", "transformers": "transformers", "safetensors": "transformers"}
"""The extra that brings a package which modules import plainly, without ``require``."""


def versions() -> dict[str, str]:
    """Python's and those of the packages that are installed."""
    installed = {package: version for package in RECORDED if (version := _version(package)) is not None}
    return {"python": platform.python_version(), **installed}


@cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def require(module: str, *, install: str, purpose: str) -> ModuleType:
    """Import ``module`` or say which command brings it.

    Args:
        module: the module to import, such as ``openai``.
        install: what to hand to pip, such as ``"'maskdpo[vllm]'"``.
        purpose: what needs it, such as ``--backend vllm``.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split(".")[0] != error.name.split(".")[0]:
            raise  # the package is there, something that it needs is not: show that
        raise UserError(f"{purpose} needs the package {module}. Install it with: pip install {install}") from None


def install_command(error: ModuleNotFoundError) -> UserError | None:
    """What to tell a user in place of a plain import's failure; None where the package is none of an extra's."""
    package = (error.name or "").partition(".")[0]
    if package not in BROUGHT_BY:
        return None
    return UserError(
        f"this needs the package {package}, which is not installed. "
        f"Install it with: pip install 'maskdpo[{BROUGHT_BY[package]}]'"
    )
