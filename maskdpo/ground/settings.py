"""The settings of ``maskdpo ground``."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from maskdpo.registry import named_in
from maskdpo.settings import KeyValues, Limit, Option, PromptsFile, Restart, Settings

Paths = Annotated[tuple[Path, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str | Path) else given)]


class GroundSettings(Settings):
    """What ``maskdpo ground`` can be told."""

    prompts: PromptsFile
    corpus: Annotated[
        Paths,
        Field(min_length=1),
        Option(
            "The documents: a file or a folder of .txt, .md, .html, .jsonl, .parquet and .arrow, or `hub:user/name`; "
            "repeat the option for more.",
            metavar="DOCS",
        ),
    ]
    responses: Annotated[
        Paths,
        Option(
            "Response records: look up the sentences of the answers too; repeat the option for more files.",
            metavar="RESPONSES",
        ),
    ] = ()
    out: Annotated[Path, Option("Prompt records with references (JSONL), appended as they come.")]
    passages: Annotated[int, Field(ge=1), Option("Most passages per question.")] = 5
    sentence_passages: Annotated[int, Field(ge=1), Option("Most passages per sentence of an answer.")] = 1
    passage_words: Annotated[
        int,
        Field(ge=10, le=2000),
        Option("Longest passage, in English words of six bytes; it ends at the end of a sentence."),
    ] = 100
    text_column: Annotated[
        str | None,
        Option("The column or field that holds the text of rows. [default: `text`, `content` and the like]"),
    ] = None
    retriever: Annotated[
        str,
        named_in("maskdpo.ground.retriever:RETRIEVERS"),
        Option("`bm25`, or a retriever of your own: `package.module:factory` or `./file.py:factory`."),
    ] = "bm25"
    retriever_options: Annotated[
        KeyValues,
        Field(alias="retriever_option"),
        Option("KEY=VALUE for the retriever itself; repeat the option for more.", metavar="KEY=VALUE"),
    ] = {}
    limit: Limit = None
    restart: Restart = False
