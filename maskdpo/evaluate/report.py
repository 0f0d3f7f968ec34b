"""``maskdpo report``: files to a page."""

from pathlib import Path

from maskdpo.errors import InputError
from maskdpo.evaluate.page import PageStats, write_page, write_pairs_page
from maskdpo.evaluate.tables import evaluate_files
from maskdpo.io import read_prompts, read_records, record_type, refuse_overwriting
from maskdpo.schemas import Annotation, Pair


def write_report(
    file: Path,
    out: Path,
    *,
    compare: Path | None = None,
    prompts: Path | None = None,
    gold: Path | None = None,
    title: str | None = None,
    seed: int = 0,
) -> PageStats:
    """Write the page for an annotations file, for two of them (before and after), or for a pairs file."""
    refuse_overwriting(out, file, compare, prompts, gold)
    known = read_prompts(prompts) if prompts else None
    kind = record_type(file)
    if kind is Pair:
        if compare or gold:
            raise InputError("is a pairs file: --compare and --gold take annotations", path=file)
        return write_pairs_page(out, read_records(file, Pair), title=title or file.stem, prompts=known)
    if kind is not Annotation:
        raise InputError(f"holds {kind.__name__.lower()} records; report takes annotations or pairs", path=file)
    return write_page(
        out,
        read_records(file, Annotation),
        title=title or (f"{file.stem} -> {compare.stem}" if compare else file.stem),
        prompts=known,
        compare=read_records(compare, Annotation) if compare else None,
        gold={record.id: record for record in read_records(gold, Annotation)} if gold else None,
        summary=evaluate_files(file, prompts=prompts, gold=gold, compared=compare, seed=seed).tables(),
    )
