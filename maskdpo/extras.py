"""Optional packages, which are imported where they are used; and the versions of packages that decide a result."""

import importlib
import importlib.metadata
import platform
from functools import cache
from types import ModuleType

from maskdpo.errors import UserError

RECORDED = ("maskdpo", "torch", "transformers", "tokenizers", "vllm", "openai", "sentencex", "spacy", "nltk")

BROUGHT_BY = {"torch": "train", "matplotlib": "train", "transformers": "transformers", "safetensors": "transformers"}
"""The extra of each package that modules import without ``require``."""


def versions() -> dict[str, str]:
    """The versions of Python and of those packages in ``RECORDED`` that are installed."""
    installed = {package: version for package in RECORDED if (version := _version(package)) is not None}
    return {"python": platform.python_version(), **installed}


@cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def require(module: str, *, install: str, purpose: str) -> ModuleType:
    """Import ``module``, or raise a ``UserError`` with the command that installs its package.

    Args:
        module: the module to import, such as ``openai``.
        install: the argument of ``pip install``, such as ``"'maskdpo[vllm]'"``.
        purpose: what needs it, such as ``--backend vllm``.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split(".")[0] != error.name.split(".")[0]:
            raise  # the package is installed, but a package that it needs is not
        raise UserError(f"{purpose} needs the package {module}. Install it with: pip install {install}") from None


def install_command(error: ModuleNotFoundError) -> UserError | None:
    """The error for a plain import that failed, with the command that installs the package; None for other packages."""
    package = (error.name or "").partition(".")[0]
    if package not in BROUGHT_BY:
        return None
    return UserError(
        f"this needs the package {package}, which is not installed. "
        f"Install it with: pip install 'maskdpo[{BROUGHT_BY[package]}]'"
    )
