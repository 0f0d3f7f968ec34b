"""``maskdpo build-pairs``: from labelled answers to preference pairs. Everything that is dropped is counted by reason.

The answers are read twice: the first pass keeps scores and counts, the second reads the texts of proposed pairs.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from maskdpo.console import counted, progress, warn
from maskdpo.dataset.answers import AnswerTexts, open_answer_texts, read_candidates, read_prompts_without_references
from maskdpo.dataset.candidates import Candidate
from maskdpo.dataset.draw import draw, split_of
from maskdpo.dataset.filters import DroppedPair, NoPair, pair_problem, too_similar
from maskdpo.dataset.options import PairOptions
from maskdpo.dataset.score import is_bounded
from maskdpo.dataset.stats import PairStats
from maskdpo.dataset.strategies import STRATEGIES, Eligible, Proposal
from maskdpo.dataset.write import pair_files, pair_record, test_file
from maskdpo.errors import InputError, NoPairs, UserError
from maskdpo.io import Input, atomic_write, files_of, read_records, refuse_overwriting
from maskdpo.run_record import meta_file, refuse_replacing
from maskdpo.schemas import Annotation, Prompt
from maskdpo.stage_run import Run, by_role
from maskdpo.verdicts.gold import check_gold

DEFAULTS = PairOptions()


def build_pairs(
    prompts_file: Path,
    annotations_files: Input,
    out: Path,
    options: PairOptions = DEFAULTS,
    *,
    gold_file: Path | None = None,
    summary_file: Path | None = None,
) -> PairStats:
    """Pair the answers to every prompt; write ``out`` and, for held-out topics, ``test_file(out)``, both atomically.

    Answers to one prompt make pairs whichever of the files they are in. An earlier output is replaced. ``summary_file``
    gets ``PairStats.summary()`` as JSON. The labels of people in ``gold_file`` go before those of the judge.
    """
    files = files_of(annotations_files)
    _check_outputs((prompts_file, *files, *([gold_file] if gold_file else [])), out, summary_file)
    # hashed before they are read: an edit meanwhile must not be recorded as the input
    inputs = {"prompts": prompts_file, **by_role("annotations", files)}
    inputs |= {"gold": gold_file} if gold_file else {}
    run = Run(meta_file(out), "build-pairs", options.model_dump(), inputs, restart=None)
    prompts = read_prompts_without_references(prompts_file)
    stats = PairStats(bounded=is_bounded(options.score), prompts=len(prompts))
    gold = {record.id: record for record in read_records(gold_file, Annotation)} if gold_file else {}
    if gold_file:
        check_gold(gold, gold_file, files, ())
    candidates = read_candidates(files, prompts, options, stats, gold)
    if gold_file:
        _say_gold(gold_file, gold, stats)
    with (
        atomic_write(summary_file) if summary_file else nullcontext() as summary,
        pair_files(out) as write,
        open_answer_texts(files, gold) as texts,
        progress("build-pairs: writing", None, "pairs") as bar,
    ):
        for topic, proposals in _by_topic(prompts, candidates, options, stats):
            split = split_of(topic, options.test_size, options.seed)
            kept = _keep(proposals, texts, options, stats)
            for proposal in kept:
                prompt = prompts[proposal.chosen.prompt_id]
                pair = pair_record(prompt, proposal, texts.of(proposal.chosen), texts.of(proposal.rejected))
                write(split, pair)
                stats.add_pair(split, pair, *proposal)
            if kept:
                stats.add_topic(split, len(kept))
                bar.advance(len(kept))
        _refuse_too_few(stats, files)
        if options.test_size and not stats.pairs["test"]:
            topics = sum(stats.topics.values())
            warn(
                f"no topic is held out: of {counted(topics, 'topic')}, each drawn with the probability `test_size` "
                f"{options.test_size:g}, none was drawn. Raise it, change `seed`, or bring more "
                "topics to have pairs to test on"
            )
        if stats.fragments_judged:
            answers = counted(stats.fragments_judged, "answer")
            warn(
                f"{', '.join(map(str, files))}: in {answers} the torn sentence at a cut-off was judged, by an earlier "
                "version, so it trains and counts; `maskdpo relabel` takes these labels away without a call"
            )
        if summary:
            summary.write(json.dumps(stats.summary(), indent=2).encode() + b"\n")
        run.begin()  # the files are replaced now: the record of an earlier run must not describe these pairs
    run.finish(stats.summary(), [out, test_file(out)])
    return stats


def _say_gold(file: Path, gold: Mapping[str, Annotation], stats: PairStats) -> None:
    if not stats.gold_answers:
        raise InputError("labels no answer of the annotations: do the ids and the texts match?", path=file)
    if stats.gold_answers < len(gold):
        warn(f"{file}: {len(gold) - stats.gold_answers:,} of {len(gold):,} answers are not among the annotations")


def _check_outputs(inputs: Sequence[Path], out: Path, summary_file: Path | None) -> None:
    outputs = [out, test_file(out), *([summary_file] if summary_file else [])]
    for output in outputs:
        refuse_overwriting(output, *inputs)
        refuse_replacing(output, "build-pairs")
    if summary_file and summary_file.absolute() in {file.absolute() for file in (*outputs[:2], meta_file(out))}:
        raise InputError("is a file that this command writes already; give `summary` another name", path=summary_file)


def _by_topic(
    prompts: Mapping[str, Prompt], candidates: Mapping[str, list[Candidate]], options: PairOptions, stats: PairStats
) -> Iterator[tuple[str, list[Proposal]]]:
    """The proposals of the strategy per topic, without those that are no pair whatever their texts."""
    topics: dict[str, list[str]] = {}
    for prompt in prompts.values():
        topics.setdefault(prompt.topic_or_id, []).append(prompt.id)
    for topic in sorted(topics):
        found: list[Proposal] = []
        for prompt_id in sorted(topics[topic]):
            proposals = _proposals(candidates.get(prompt_id), options, stats)
            problems = [pair_problem(*proposal, options) for proposal in proposals]
            stats.dropped_pairs.update(problem for problem in problems if problem)
            good = [proposal for proposal, problem in zip(proposals, problems, strict=True) if not problem]
            stats.add_no_pair(NoPair.DROPPED, int(bool(proposals) and not good))
            found += good
        yield topic, found


def _proposals(answers: list[Candidate] | None, options: PairOptions, stats: PairStats) -> list[Proposal]:
    """The proposals of the strategy for one prompt. If there are none, the reason is counted in ``stats``."""
    eligible = Eligible.of(answers or [], options)
    stats.may_be_chosen += len(eligible.chosen)
    stats.may_be_rejected += len(eligible.rejected)
    if answers is None:
        reason = NoPair.NO_ANSWERS
    elif len(answers) < 2:
        reason = NoPair.TOO_FEW
    elif not eligible.chosen:
        reason = NoPair.NO_CHOSEN
    elif not eligible.rejected:
        reason = NoPair.NO_REJECTED
    elif proposals := STRATEGIES[options.strategy](eligible, options):
        return proposals
    else:
        reason = NoPair.EVEN
    stats.add_no_pair(reason, 1)
    return []


def _keep(proposals: list[Proposal], texts: AnswerTexts, options: PairOptions, stats: PairStats) -> list[Proposal]:
    """The pairs of one topic that are kept, in their order: drawn at random up to the limits, without similar texts."""
    order = sorted((draw(options.seed, "keep", proposal.id), i) for i, proposal in enumerate(proposals))
    per_prompt: Counter[str] = Counter()
    kept: list[int] = []
    for _, i in order:
        chosen, rejected = proposals[i]
        if per_prompt[chosen.prompt_id] == options.max_per_prompt:
            problem = DroppedPair.PER_PROMPT
        elif len(kept) == options.max_per_topic:
            problem = DroppedPair.PER_TOPIC
        elif options.max_similarity < 1 and too_similar(
            texts.of(chosen).normalised, texts.of(rejected).normalised, options.max_similarity
        ):
            problem = DroppedPair.SIMILAR
        else:
            kept.append(i)
            per_prompt[chosen.prompt_id] += 1
            continue
        stats.dropped_pairs[problem] += 1
    stats.add_no_pair(NoPair.DROPPED, len({p.chosen.prompt_id for p in proposals} - per_prompt.keys()))
    return [proposals[i] for i in sorted(kept)]


def _refuse_too_few(stats: PairStats, files: Sequence[Path]) -> None:
    if not stats.total:
        raise NoPairs(f"no pair could be built ({stats.drop_reasons()})", path=", ".join(map(str, files)))
    if not stats.pairs["train"]:
        raise UserError(
            f"no pair is left to train on: {counted(stats.total, 'pair is', 'pairs are')} in the test split; lower "
            "`test_size`, or bring more topics"
        )
