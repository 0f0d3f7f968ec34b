"""Records of files, and what makes backends, judges and splitters."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskdpo import io
from maskdpo.api.given import R
from maskdpo.io.memory import File, checked
from maskdpo.schemas import Annotation, FileRecord, Pair, Prompt, Response
from maskdpo.settings_reading import load_settings

if TYPE_CHECKING:
    from maskdpo.annotate.judge import Judge
    from maskdpo.backends.base import Backend
    from maskdpo.text.splitters import Splitter


def read_records(file: File, kind: type[R]) -> Iterator[R]:
    """The records of a file, one by one, checked.

    Args:
        file: JSONL, Parquet, Arrow, a dataset folder, or ``hub:user/name``.
        kind: ``Prompt``, ``Response``, ``Annotation`` or ``Pair``.
    """
    return io.read_records(Path(file), kind)


def write_records(file: File, records: Iterable[FileRecord]) -> None:
    """Write records of one kind as JSONL, or as Parquet if the name ends in ``.parquet``: the file appears whole."""
    io.write_records(Path(file), checked(records, Prompt, Response, Annotation, Pair))


def make_backend(model: str, backend: str = "transformers", **settings: Any) -> "Backend":
    """What runs a model: this process (``transformers``, ``vllm``) or a server (``openai``). Models are loaded late.

    Args:
        settings: of ``backends.settings.BackendSettings``, such as ``api_base`` or ``batch_size``.
    """
    from maskdpo.backends import make_backend as make
    from maskdpo.backends.settings import BackendSettings

    return make(model, load_settings(BackendSettings, {"backend": backend, **settings}))


def make_judge(judge: str, **settings: Any) -> "Judge":
    """A judge by its name: ``lexical``, ``llm`` (with ``model``), or one of your own.

    Args:
        settings: of ``annotate.settings.JudgeSettings``, such as ``model``, ``protocol``, ``backend`` or ``api_base``.
    """
    from maskdpo.annotate.settings import JudgeSettings

    return load_settings(JudgeSettings, {"judge": judge, **settings}).make_judge()


def make_splitter(splitter: str = "markdown", **options: Any) -> "Splitter":
    """A sentence splitter by its name: ``markdown``, ``spacy``, ``nltk``, or one of your own with its options."""
    from maskdpo.text.splitters import get_splitter

    return get_splitter(splitter, options=options)
