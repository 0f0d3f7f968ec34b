#!/usr/bin/env bash
# A judge trained in rounds, as ANAH-v2 does it. Repeat the same command to go on after an interruption.
#
#   examples/judge_rounds.sh GOLD PROMPTS RESPONSES TEACHER BASE OUT
#
# GOLD       sentences that people have labelled, a hundred or more
# PROMPTS    prompts with references, of GOLD and of RESPONSES
# RESPONSES  answers without labels, the more topics the better
# TEACHER    the language model that gives the first labels; further options of `annotate`, such as --backend vllm, in
#            $TEACHER_OPTIONS
# BASE       what the judge is made from, such as Qwen/Qwen2.5-0.5B-Instruct
#
# $EVAL      where it is set: people's labels of other topics, on which every round's judge is measured
set -euo pipefail
gold=$1 prompts=$2 responses=$3 teacher=$4 base=$5 out=$6
settings=$(dirname "$0")/judge_rounds.yaml
mkdir -p "$out"

# Round 0: the teacher votes eight times on every sentence; a label stands where three quarters of the votes agree.
# shellcheck disable=SC2086
maskdpo annotate "$prompts" "$responses" --judge llm --model "$teacher" --votes 8 --min-confidence 0.75 \
    ${TEACHER_OPTIONS:-} --out "$out/labels-0.jsonl"

# Rounds 1 to 3: a judge is trained from the base on people's labels and on the last labels, then labels all answers
# anew; sentences on which it is not sure are `unsure` and teach nothing. Labels are learnt, not `scores` (--hard): from
# round 2 on labels follow from a calibration, and scores are from before it.
for round in 1 2 3; do
    last=$out/labels-$((round - 1)).jsonl
    judge=$out/judge-$round
    maskdpo train-judge "$gold" "$last" --weight 1 --weight 0.5 --hard --prompts "$prompts" --config "$settings" \
        --model "$base" ${EVAL:+--eval "$EVAL"} --out "$judge"
    calibration=() # there is none where too few sentences are held out
    [[ -f $judge/calibration.json ]] && calibration=(--calibration "$judge/calibration.json")
    maskdpo annotate "$prompts" "$responses" --judge classifier --model "$judge" "${calibration[@]}" \
        --min-confidence 0.75 --out "$out/labels-$round.jsonl"
done
