"""The settings of ``maskdpo review``."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from maskdpo.schemas import Queue
from maskdpo.settings import INPUT, AnnotationsFile, Option, Settings, records

LOOPBACK = "127.0.0.1"


class ReviewSettings(Settings):
    """What ``maskdpo review`` can be told."""

    annotations: AnnotationsFile
    prompts: Annotated[
        Path, records("prompts"), Option(f"Prompt records, for questions and references: {INPUT}.", metavar="PROMPTS")
    ]
    out: Annotated[Path, Option("Decision records, appended one by one; reviewers may share the file.")]
    reviewer: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=100),
        Option("Your name, as the decisions have it."),
    ]
    queue: Annotated[
        Queue,
        Option(
            "Which sentences: `random` or `stratified` (equally many of each label, over all topics), whose "
            "decisions say what the judge is worth; `uncertain` (the judge's confidence is least) or `disagreement` "
            "(of the labels of `--against`), to find errors.",
            panel="Queue",
        ),
    ] = "random"
    against: Annotated[
        tuple[Path, ...],
        Option(
            "For `disagreement`: annotations of another judge, or decisions of several reviewers, between whom you "
            "then decide; repeat the option for more files.",
            panel="Queue",
        ),
    ] = ()
    limit: Annotated[int, Field(ge=1), Option("Sentences in the queue, at most.", panel="Queue")] = 100
    blind: Annotated[
        float | None,
        Field(ge=0, le=1),
        Option(
            "The share of the sentences, drawn at random, whose label, confidence and evidence by the judge stay "
            "hidden. [default: 1 in `random`, else 0.5]",
            metavar="SHARE",
            panel="Queue",
        ),
    ] = None
    seed: Annotated[
        int, Field(ge=0), Option("The same seed gives the same queue, to every reviewer.", panel="Queue")
    ] = 0
    host: Annotated[
        str,
        Option(
            "The address to listen at. Another one than that of this machine opens the page to others.", panel="Page"
        ),
    ] = LOOPBACK
    port: Annotated[
        int | None,
        Field(ge=1, le=65535),
        Option("The port to listen at. [default: one that is the same for the same file and reviewer]", panel="Page"),
    ] = None
    browser: Annotated[bool, Option("Open the page in the browser.", panel="Page")] = True

    @property
    def blind_share(self) -> float:
        return self.blind if self.blind is not None else 1.0 if self.queue == "random" else 0.5
