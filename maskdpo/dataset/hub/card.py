"""The card of a dataset: a YAML header that the Hub reads, and a generated part between two marks.

Building it again replaces the text between the marks and the keys that maskdpo writes; all else stays as it is.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from maskdpo.dataset.hub import features
from maskdpo.dataset.hub.data import Contents
from maskdpo.dataset.hub.figures import histogram
from maskdpo.dataset.hub.origin import Origin
from maskdpo.errors import InputError
from maskdpo.html.render import SummaryTable
from maskdpo.hub.card import card_template, join_card, split_card
from maskdpo.hub.header import CARD, Header, entry, listed, set_value
from maskdpo.io import CONFIGS
from maskdpo.redact import line_without_paths, without_paths
from maskdpo.run_record import sha256_of
from maskdpo.schemas import JudgeInfo, Label, Status
from maskdpo.schemas.language import primary

BEGIN = "<!-- maskdpo: generated from here; edits up to the end mark are lost -->"
END = "<!-- maskdpo: end of the generated part; what stands before and after is kept -->"

TAGS = ("maskdpo", "mask-dpo", "dpo", "trl", "preference", "rlaif", "hallucination", "factuality", "sentence-level")
TASKS = ("text-generation", "text-classification")
SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))

MAKE_AGREEMENT = "make it with: maskdpo evaluate ANNOTATIONS --gold GOLD --json FILE"

MEANINGS = {
    Label.NO_HALLUCINATION: ("the reference supports every fact of the sentence", "right"),
    Label.CONTRADICTORY: ("the reference says otherwise", "wrong"),
    Label.UNVERIFIABLE: ("the reference neither supports nor contradicts it", "wrong"),
    Label.HALLUCINATION: ("wrong, from a source that does not say in which way", "wrong"),
    Label.NO_FACT: ("nothing to check: an opinion, a question, a transition", "no fact"),
}


def build_card(
    before: str, *, repo: str, license: str, contents: Contents, origin: Origin, agreement: Mapping[str, Any] | None,
    folder: Path, people: Sequence[SummaryTable] = (),
) -> str:  # fmt: skip
    """The README.md for the data in ``folder``.

    Args:
        before: the earlier card, or an empty text.
        agreement: the result of ``read_agreement``.
        people: how far people agree.
    """
    head, body = split_card(before)
    languages = sorted({*map(primary, contents.figures.languages)})
    made = {
        "license": license,
        **({"language": _joined(head, "language", languages)} if languages else {}),
        "task_categories": _joined(head, "task_categories", TASKS),
        "size_categories": [next((name for limit, name in SIZES if contents.rows < limit), "10M<n<100M")],
        "tags": _joined(head, "tags", TAGS),
        "configs": _by_config(head, "configs", features.configs(contents)),
        "dataset_info": _by_config(head, "dataset_info", features.dataset_info(contents, folder)),
    }
    title = repo.rpartition("/")[2]
    if "pretty_name" in head:
        title = " ".join(text.value for text in listed(head, "pretty_name", yaml.ScalarNode)) or title
    else:
        made["pretty_name"] = title
    for key, value in made.items():
        set_value(head, key, value)
    generated = f"{BEGIN}\n\n{_render(repo, contents, origin, agreement, people)}\n{END}\n"
    return join_card(head, _place(body, generated, title=title))


def read_agreement(file: Path, annotations: Path) -> dict[str, Any]:
    """The agreement of these labels with human ones, from what ``maskdpo evaluate --gold GOLD --json FILE`` wrote."""
    try:
        found = json.loads(file.read_bytes())
        three = found["agreement"]["three_classes"]
        agreement = {
            "gold": Path(found["gold"]).name,
            "sentences": int(three["gold_sentences"]),
            "judged": int(three["judged"]),
            "figures": {name: three["figures"][name] for name in ("kappa", "alpha", "accuracy", "macro_f1")},
        }
    except FileNotFoundError:
        raise InputError("no such file", path=file) from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"holds no agreement with gold labels; {MAKE_AGREEMENT}", path=file) from None
    if found.get("annotations_sha256") != sha256_of(annotations):
        raise InputError(f"is not of {annotations.name} as it is now; {MAKE_AGREEMENT}", path=file)
    return agreement


def read_card(file: Path, *, shown: str | None = None) -> str:
    """A card that people may have edited; ``shown``: its name in errors."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError("is not UTF-8 text; save it as UTF-8", path=shown or file) from None


def _place(body: str, generated: str, *, title: str) -> str:
    begin, end = body.find(BEGIN), body.find(END)
    if begin < 0 and end < 0:
        return f"{body.rstrip() or f'# {title}'}\n\n{generated}".lstrip("\n")
    if not 0 <= begin < end:
        raise InputError(
            "one of the two marks of the generated part is gone or misplaced; delete the other, too", path=CARD
        )
    return body[:begin] + generated + body[end + len(END) :].removeprefix("\n")


def _joined(head: Header, key: str, ours: Iterable[str]) -> list[Any]:
    """The values that the card lists, then those of maskdpo that are missing."""
    there = listed(head, key, yaml.ScalarNode)
    return [*there, *(value for value in ours if value not in [one.value for one in there])]


def _by_config(head: Header, key: str, ours: list[dict[str, Any]] | dict[str, Any]) -> list[Any]:
    """The configs of maskdpo, then those that others have added to the card."""
    made = ours if isinstance(ours, list) else [ours]
    others = listed(head, key, yaml.MappingNode)
    return [*made, *(config for config in others if entry(config, "config_name") not in CONFIGS)]


def _render(
    repo: str,
    contents: Contents,
    origin: Origin,
    agreement: Mapping[str, Any] | None,
    people: Sequence[SummaryTable],
) -> str:
    figures = contents.figures
    filters: dict[str, Callable[..., str]] = {"cell": _cell, "fenced": _fenced, "figure": _figure}
    filters |= {"line_without_paths": line_without_paths, "without_paths": without_paths}
    sentences, missing = figures.sentences(), figures.not_judged()
    values = {
        "repo": repo,
        "parts": contents.parts,
        "topics": len(figures.topics),
        "row": json.dumps(figures.row, indent=2, ensure_ascii=False),
        "meanings": MEANINGS,
        "labels": list(Label),
        "counts": [
            (*key, [counts[label] for label in Label], figures.statuses[key].total() - counts.total())
            for key, counts in sorted(figures.labels.items())
        ],
        "sentences": sentences,
        "not_judged": missing.total(),
        "why": [(status.value, missing[status]) for status in Status if missing[status]],
        "share": missing.total() / sentences if sentences else 0.0,
        "histogram": "\n".join(histogram(figures.scores)),
        "agreement": agreement,
        "people": people,
        "judges": [(_judge(judge), n) for judge, n in sorted(figures.judges.items(), key=lambda item: str(item[0]))],
        "samplings": sorted(figures.samplings.items()),
        "origin": origin,
    }
    return card_template("maskdpo.dataset.hub", "card.md", filters).render(values).strip() + "\n"


def _judge(judge: JudgeInfo | None) -> dict[str, Any]:
    return judge.model_dump() if judge else {"name": "people (no judge recorded)"}


def _cell(value: object) -> str:
    """Text for a cell of a Markdown table, escaped so that it neither ends the cell nor begins markup."""
    if value is None:
        return "-"
    text = " ".join(str(value).split())
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;")


def _figure(found: Mapping[str, float | None]) -> str:
    if found["value"] is None:
        return "-"
    low, high = found["low"], found["high"]
    interval = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
    return f"{found['value']:.3f}{interval}"


def _fenced(text: str, language: str = "") -> str:
    """A code block that the text cannot end, with comments broken up, because marks are searched for as text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    shown = text.replace("<!--", "<!\u200b--")
    return f"{fence}{language}\n{shown}\n{fence}"
