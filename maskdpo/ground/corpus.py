"""Documents out of files, folders and datasets on the Hub, one by one."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from maskdpo.errors import InputError
from maskdpo.ground.html import page_of
from maskdpo.hub import client
from maskdpo.hub.header import CARD
from maskdpo.io.rows import rows_of
from maskdpo.io.sources import dataset_of, files_in
from maskdpo.io.tables import column_names, read_columns, text_columns
from maskdpo.io.text import numbered_lines, open_bytes

TEXT_COLUMNS = ("text", "content", "contents", "body", "passage", "document", "article", "page_content")
"""Names of columns that hold the text of a row, in the order in which they are looked for."""
ID_COLUMNS = ("id", "_id")
TITLE_COLUMNS = ("title",)
_HEADING = re.compile(r"\s*#\s+(.+)")
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)


class Document(NamedTuple):
    """A text with a name. Positions in it count code points."""

    name: str
    """The path of a file inside the corpus, or the id of a row; ``path:number`` for a row without one."""
    title: str | None
    text: str


class CorpusFile(NamedTuple):
    """A file of a corpus."""

    name: str
    path: Callable[[], Path]
    """A file on the Hub is downloaded when it is read."""


def corpus_files(corpus: Sequence[Path]) -> tuple[list[CorpusFile], Counter[str]]:
    """The files of all parts of a corpus, in the order of their names, and how many of which kinds are left out.

    Raises:
        InputError: a part does not exist, or holds no documents.
    """
    files, others = list[CorpusFile](), Counter[str]()
    for part in corpus:
        found = _files_of(part)
        kept = [file for file in found if kind_of(file.name) is not None]
        left_out = Counter(_suffix(file.name) for file in found if kind_of(file.name) is None)
        if not kept:
            raise InputError(f"{_what_is_there(left_out)}; what is read: {', '.join(READERS)}", path=part)
        files += kept
        others += left_out
    return files, others


def _files_of(part: Path) -> list[CorpusFile]:
    dataset = dataset_of(part)
    if dataset is not None and not dataset.on_hub:
        raise InputError(
            "has the shape of a maskdpo dataset (a folder pairs, annotations or prompts); name the folder of the "
            "documents itself",
            path=part,
        )
    if dataset is not None:
        if dataset.config is not None or dataset.split != "train":
            raise InputError("a corpus has no splits; name a folder: hub:user/name/folder", path=part)
        where = dataset.snapshot()
        names = [name for name in where.files if name.startswith(dataset.inner) and name != CARD]
        return [CorpusFile(name, partial(client.download, where, name)) for name in names]
    if part.is_dir():
        return [CorpusFile(name, partial(part.joinpath, name)) for name in files_in(part)]
    open_bytes(part).close()
    return [CorpusFile(part.name, lambda: part)]


def _what_is_there(others: Counter[str]) -> str:
    if not others:
        return "holds no files"
    return "holds no documents, but " + listed(others)


def listed(others: Counter[str]) -> str:
    """Files by the endings of their names: ``3 .pdf, 1 .png``."""
    return ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common(5))


def _suffix(name: str) -> str:
    return Path(name).suffix.lower() or "without an ending"


def kind_of(name: str) -> str | None:
    """The ending that says how a file is read; None for files that are not."""
    low = name.lower().removesuffix(".gz").removesuffix(".zst")
    return next((kind for kind in READERS if low.endswith(kind)), None)


def documents(files: Iterable[CorpusFile], text_column: str | None = None) -> Iterator[Document]:
    """All documents of these files, also those without text.

    Raises:
        InputError: a file is no text, a row is broken or has no text column.
    """
    for file in files:
        yield from READERS[kind_of(file.name) or ""](file.path(), file.name, text_column)


def _plain(path: Path, name: str, _: str | None) -> Iterator[Document]:
    yield Document(name, None, _text_of(path))


def _markdown(path: Path, name: str, _: str | None) -> Iterator[Document]:
    text = _text_of(path)
    heading = _HEADING.match(text)
    yield Document(name, heading[1].strip() if heading else None, text)


def _text_of(path: Path) -> str:
    data = b"".join(line for _, line in numbered_lines(path))
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"is no text in UTF-8 (byte 0x{data[error.start]:02x} at {error.start:,}); save it as UTF-8, or take it "
            "out of the corpus",
            path=path,
        ) from None
    return _no_binary(text, path)


def _no_binary(text: str, path: Path) -> str:
    if "\0" in text:
        raise InputError("is a binary file, no text (it holds NUL bytes); take it out of the corpus", path=path)
    return text


def _html(path: Path, name: str, _: str | None) -> Iterator[Document]:
    data = b"".join(line for _, line in numbered_lines(path))
    declared = _CHARSET.search(data[:2048])
    page = page_of(_no_binary(_decoded(data, declared[1].decode() if declared else "utf-8"), path))
    yield Document(name, page.title, page.text)


def _decoded(data: bytes, encoding: str) -> str:
    """As browsers do it: in the encoding that the page names, else in UTF-8, else in that of old pages."""
    for candidate in (encoding, "utf-8"):
        try:
            return data.decode(candidate)
        except (LookupError, UnicodeError):
            continue
    return data.decode("cp1252", errors="replace")


ROWS_THAT_TELL = 1000
"""The columns of JSON lines are told by so many rows, as a row may leave out what is null."""


class _Columns(NamedTuple):
    text: str
    id: str | None
    title: str | None


def _columns(names: Sequence[str], texts: Sequence[str], given: str | None, path: Path) -> _Columns:
    """The columns to read.

    Args:
        texts: those of the columns that hold texts.
    """
    listed = f"its columns: {', '.join(names) or 'none'}"
    if given is not None and given not in names:
        raise InputError(f"has no column {given!r} (`text_column`); {listed}", path=path)
    text = given or next((name for name in TEXT_COLUMNS if name in texts), None)
    if text is None:
        if len(texts) != 1:
            raise InputError(f"no column is known to hold the text; name one by `text_column`; {listed}", path=path)
        text = texts[0]
    id_, title = (next((n for n in known if n in names and n != text), None) for known in (ID_COLUMNS, TITLE_COLUMNS))
    return _Columns(text, id_, title)


def _json_lines(path: Path, name: str, text_column: str | None) -> Iterator[Document]:
    known: dict[str, bool] = {}  # whether a field is a text in some row
    for _, row in islice(_objects(path), ROWS_THAT_TELL):
        known |= {key: known.get(key, False) or isinstance(value, str) for key, value in row.items()}
    columns = _columns(list(known), [key for key, is_text in known.items() if is_text], text_column, path)
    for number, row in _objects(path):
        yield _row(row, columns, name, number, path)


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, row in rows_of(path):
        if isinstance(row, ValueError):
            raise InputError(str(row), path=path, line=number)
        if not isinstance(row, dict):
            raise InputError("not a JSON object", path=path, line=number)
        yield number, row


def _table(path: Path, name: str, text_column: str | None) -> Iterator[Document]:
    columns = _columns(column_names(path), text_columns(path), text_column, path)
    for number, row in enumerate(read_columns(path, [column for column in columns if column]), 1):
        yield _row(row, columns, name, number, path)


def _row(row: dict[str, Any], columns: _Columns, name: str, number: int, path: Path) -> Document:
    text, id_ = row.get(columns.text), row.get(columns.id or "")
    if not isinstance(text, str | None):
        raise InputError(f"must be a text, not {type(text).__name__}", path=path, line=number, field=columns.text)
    title = row.get(columns.title or "")
    named = str(id_).strip() if isinstance(id_, str | int) else ""
    return Document(named or f"{name}:{number}", title if isinstance(title, str) else None, text or "")


READERS: dict[str, Callable[[Path, str, str | None], Iterator[Document]]] = {
    ".txt": _plain,
    ".md": _markdown,
    ".html": _html,
    ".htm": _html,
    ".jsonl": _json_lines,
    ".parquet": _table,
    ".arrow": _table,
}
"""How files are read, by the ending of their names."""
