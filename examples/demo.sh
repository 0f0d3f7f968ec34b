#!/usr/bin/env bash
# This script runs the whole pipeline on a real small model, on two CPU cores, without a GPU and without the Hub: `make demo`
# calls it. Run it again to continue an interrupted run; once all outputs are there, it finishes in seconds.
set -euo pipefail
cd "$(dirname "$0")/.."

DIR=${DEMO_DIR:-demo}
MODEL=${DEMO_MODEL:-smollm2}
STEP=0

run() { # prints a command, then runs it
    printf '\n\033[1;36m$ %s\033[0m\n' "$*"
    "$@"
}

step() {
    STEP=$((STEP + 1))
    printf '\n\033[1m[%s/7] %s\033[0m\n' "$STEP" "$1"
}

began=$SECONDS
sampling=(--raw --n 8 --temperature 0.8 --max-tokens 80 --stop '\n' --batch-size 128)

step "Make prompts with references: facts about each country, from PyPI data packages"
run python examples/countries.py --out "$DIR" --train 60 --heldout 24

step "Sample the model: eight answers per country"
run maskdpo sample "$DIR/train.jsonl" --model "$MODEL" --out "$DIR/responses.jsonl" "${sampling[@]}"
run maskdpo sample "$DIR/heldout.jsonl" --model "$MODEL" --out "$DIR/before.jsonl" "${sampling[@]}"

step "Label every sentence by comparing it with the reference"
run maskdpo annotate "$DIR/train.jsonl" "$DIR/responses.jsonl" --out "$DIR/annotations.jsonl" --judge lexical
run maskdpo annotate "$DIR/heldout.jsonl" "$DIR/before.jsonl" --out "$DIR/before.annotations.jsonl" --judge lexical

step "Pair the best with the worst answer about each country; show which tokens will train"
run maskdpo build-pairs "$DIR/train.jsonl" "$DIR/annotations.jsonl" --out "$DIR/pairs.jsonl" --test-size 0
run maskdpo inspect "$DIR/pairs.jsonl" --model "$MODEL" --eos drop --show 1

step "Train with Mask-DPO"
run maskdpo train "$DIR/pairs.jsonl" --model "$MODEL" --out "$DIR/model" --lr 1e-5 --epochs 2 --batch-size 10 \
    --eos drop

step "Sample the trained model on countries that were held out from training"
run maskdpo sample "$DIR/heldout.jsonl" --model "$DIR/model" --out "$DIR/after.jsonl" "${sampling[@]}"
run maskdpo annotate "$DIR/heldout.jsonl" "$DIR/after.jsonl" --out "$DIR/after.annotations.jsonl" --judge lexical

step "Compare the answers before and after training, on the held-out countries"
run maskdpo report "$DIR/before.annotations.jsonl" --compare "$DIR/after.annotations.jsonl" \
    --prompts "$DIR/heldout.jsonl" --out "$DIR/report.html" --title "Countries: SmolLM2-135M before and after Mask-DPO"
run maskdpo evaluate "$DIR/before.annotations.jsonl" --compare "$DIR/after.annotations.jsonl" --prompts "$DIR/heldout.jsonl"

printf '\nDone in %d s. See every sentence: %s\n' "$((SECONDS - began))" "$(cd "$DIR" && pwd)/report.html"
