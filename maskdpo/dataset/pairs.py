"""``maskdpo build-pairs``: from labelled answers to preference pairs. What is dropped is counted by its reason.

Two passes over the answers: the first keeps scores and counts only, the second reads the texts of proposed pairs.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path

from maskdpo.console import progress
from maskdpo.dataset.candidates import Candidate
from maskdpo.dataset.filters import DroppedPair, NoPair, alike, pair_problem
from maskdpo.dataset.lots import lot, split_of
from maskdpo.dataset.options import PairOptions
from maskdpo.dataset.reading import Texts, open_texts, read_candidates, read_prompts_slim
from maskdpo.dataset.score import is_bounded
from maskdpo.dataset.stats import PairStats
from maskdpo.dataset.strategies import STRATEGIES, Pool, Proposal
from maskdpo.dataset.write import pair_files, pair_record, test_file
from maskdpo.errors import InputError, UserError
from maskdpo.io import atomic_write, refuse_overwriting
from maskdpo.run_record import Run, meta_file
from maskdpo.schemas import Prompt

DEFAULTS = PairOptions()


def build_pairs(
    prompts_file: Path,
    annotations_file: Path,
    out: Path,
    options: PairOptions = DEFAULTS,
    *,
    summary_file: Path | None = None,
) -> PairStats:
    """Pair the answers of every prompt; write ``out`` and, for held-out topics, ``test_file(out)``, both atomically.

    Pairs are made anew each time: an earlier output is replaced. ``summary_file`` gets ``PairStats.summary()`` as JSON.
    """
    _check_outputs((prompts_file, annotations_file), out, summary_file)
    # hashed before they are read: what is edited meanwhile must not pass for what went in
    inputs = {"prompts": prompts_file, "annotations": annotations_file}
    run = Run(meta_file(out), "build-pairs", options.model_dump(), inputs, restart=None)
    prompts = read_prompts_slim(prompts_file)
    stats = PairStats(bounded=is_bounded(options.score), prompts=len(prompts))
    candidates = read_candidates(annotations_file, prompts, options, stats)
    with (
        atomic_write(summary_file) if summary_file else nullcontext() as summary,
        pair_files(out) as write,
        open_texts(annotations_file) as texts,
        progress("build-pairs: writing", None, "pairs") as bar,
    ):
        for topic, proposals in _by_topic(prompts, candidates, options, stats):
            split = split_of(topic, options.test_size, options.seed)
            kept = _keep(proposals, texts, options, stats)
            for proposal in kept:
                prompt = prompts[proposal.better.prompt_id]
                pair = pair_record(prompt, proposal, texts.of(proposal.better), texts.of(proposal.worse))
                write(split, pair)
                stats.add_pair(split, *proposal)
            if kept:
                stats.add_topic(split, len(kept))
                bar.advance(len(kept))
        _refuse_too_few(stats, annotations_file)
        if summary:
            summary.write(json.dumps(stats.summary(), indent=2).encode() + b"\n")
        run.begin()  # now the files are replaced: the record of an earlier run must not stand beside this run's pairs
    run.finish(stats.summary(), [out, test_file(out)])
    return stats


def _check_outputs(inputs: tuple[Path, Path], out: Path, summary_file: Path | None) -> None:
    outputs = [out, test_file(out), *([summary_file] if summary_file else [])]
    for output in outputs:
        refuse_overwriting(output, *inputs)
    if summary_file and summary_file.absolute() in {file.absolute() for file in (*outputs[:2], meta_file(out))}:
        raise InputError("is written by this command already; name another `summary`", path=summary_file)


def _by_topic(
    prompts: Mapping[str, Prompt], candidates: Mapping[str, list[Candidate]], options: PairOptions, stats: PairStats
) -> Iterator[tuple[str, list[Proposal]]]:
    """What the strategy proposes, topic by topic, less what shows without the texts to be no pair."""
    topics: dict[str, list[str]] = {}
    for prompt in prompts.values():
        topics.setdefault(prompt.topic_or_id, []).append(prompt.id)
    for topic in sorted(topics):
        fit = []
        for prompt_id in sorted(topics[topic]):
            proposals = _proposals(candidates.get(prompt_id), options, stats)
            problems = [pair_problem(*proposal, options) for proposal in proposals]
            stats.dropped_pairs.update(problem for problem in problems if problem)
            good = [proposal for proposal, problem in zip(proposals, problems, strict=True) if not problem]
            stats.add_no_pair(NoPair.DROPPED, int(bool(proposals) and not good))
            fit += good
        yield topic, fit


def _proposals(answers: list[Candidate] | None, options: PairOptions, stats: PairStats) -> list[Proposal]:
    """What the strategy makes of one prompt; why nothing, is counted."""
    pool = Pool.of(answers or [], options)
    stats.may_be_chosen += len(pool.better)
    stats.may_be_rejected += len(pool.worse)
    if answers is None:
        reason = NoPair.NO_ANSWERS
    elif len(answers) < 2:
        reason = NoPair.TOO_FEW
    elif not pool.better:
        reason = NoPair.NO_CHOSEN
    elif not pool.worse:
        reason = NoPair.NO_REJECTED
    elif proposals := STRATEGIES[options.strategy](pool, options):
        return proposals
    else:
        reason = NoPair.EVEN
    stats.add_no_pair(reason, 1)
    return []


def _keep(proposals: list[Proposal], texts: Texts, options: PairOptions, stats: PairStats) -> list[Proposal]:
    """The pairs of one topic that stay, in their order: drawn by lot up to the limits, near-equal ones passed over."""
    lots = sorted((lot(options.seed, "keep", proposal.id), i) for i, proposal in enumerate(proposals))
    per_prompt: Counter[str] = Counter()
    kept: list[int] = []
    for _, i in lots:
        better, worse = proposals[i]
        if per_prompt[better.prompt_id] == options.max_per_prompt:
            problem = DroppedPair.PER_PROMPT
        elif len(kept) == options.max_per_topic:
            problem = DroppedPair.PER_TOPIC
        elif options.max_similarity < 1 and alike(
            texts.of(better).normalised, texts.of(worse).normalised, options.max_similarity
        ):
            problem = DroppedPair.SIMILAR
        else:
            kept.append(i)
            per_prompt[better.prompt_id] += 1
            continue
        stats.dropped_pairs[problem] += 1
    stats.add_no_pair(NoPair.DROPPED, len({p.better.prompt_id for p in proposals} - per_prompt.keys()))
    return [proposals[i] for i in sorted(kept)]


def _refuse_too_few(stats: PairStats, annotations_file: Path) -> None:
    if not stats.total:
        raise InputError(f"no pair could be built ({stats.why_none()})", path=annotations_file)
    if not stats.pairs["train"]:
        raise UserError(f"all {stats.total} pairs fell to the test split; lower `test_size`, or bring more topics")
