#!/usr/bin/env bash
# This script samples and judges on many machines under Slurm: `bash examples/slurm_array.sh` on the login node submits
# an array of PARTS tasks, each for one part of the prompts, and a job that merges what they have made. We have not run
# it under Slurm: adapt names and sizes. Run it again to go on with what was interrupted or has failed.
#
# sample.yaml and annotate.yaml hold the settings of the two commands by the names of their options, such as
#     model: meta-llama/Llama-3.1-8B-Instruct        judge: llm
#     backend: vllm                                  model: Qwen/Qwen2.5-32B-Instruct
#     n: 8                                           backend: vllm
set -euo pipefail

export PARTS=${PARTS:-8} # the same in every run of one OUT
export PROMPTS=${PROMPTS:-prompts.jsonl} # PROMPTS, the models and OUT must be on a file system that all machines see
export SAMPLE=${SAMPLE:-sample.yaml}
export ANNOTATE=${ANNOTATE:-annotate.yaml}
export OUT=${OUT:-run}
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} # machines of a cluster seldom reach the Hub: fetch the models beforehand

case ${1:-submit} in
submit)
    JOB=$(sbatch --parsable --job-name=maskdpo --array="1-$PARTS" --gpus-per-node=1 --cpus-per-task=16 "$0" part)
    sbatch --job-name=maskdpo-merge --dependency="afterok:${JOB%%;*}" --kill-on-invalid-dep=yes --cpus-per-task=2 "$0" merge
    ;;
part)
    SHARD=$SLURM_ARRAY_TASK_ID/$PARTS
    NAME=$SLURM_ARRAY_TASK_ID-of-$PARTS.jsonl
    maskdpo sample "$PROMPTS" --config "$SAMPLE" --shard "$SHARD" --out "$OUT/parts/responses-$NAME"
    maskdpo annotate "$PROMPTS" "$OUT/parts/responses-$NAME" --config "$ANNOTATE" --shard "$SHARD" \
        --out "$OUT/parts/annotations-$NAME"
    ;;
merge)
    maskdpo merge "$OUT"/parts/responses-*-of-"$PARTS".jsonl --out "$OUT/responses.jsonl"
    maskdpo merge "$OUT"/parts/annotations-*-of-"$PARTS".jsonl --out "$OUT/annotations.jsonl"
    ;;
*)
    echo "usage: bash $0 [submit|part|merge]" >&2
    exit 2
    ;;
esac
