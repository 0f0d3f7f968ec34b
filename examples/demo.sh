#!/usr/bin/env bash
# The whole pipeline on a real small model, two cores, no GPU, no Hub: run it with `make demo`.
# Repeating it continues an interrupted run; when everything is there it is done in seconds.
set -euo pipefail
cd "$(dirname "$0")/.."

DIR=${DEMO_DIR:-demo}
MODEL=${DEMO_MODEL:-smollm2}
STEP=0

run() { # print a command, then run it
    printf '\n\033[1;36m$ %s\033[0m\n' "$*"
    "$@"
}

step() {
    STEP=$((STEP + 1))
    printf '\n\033[1m[%s/7] %s\033[0m\n' "$STEP" "$1"
}

began=$SECONDS
sampling=(--raw --n 8 --temperature 0.8 --max-tokens 80 --stop '\n' --batch-size 128)

step "Prompts with references: what is true of each country, from PyPI data packages"
run python examples/countries.py --out "$DIR" --train 60 --heldout 24

step "Sample the model: eight answers a country"
run maskdpo sample "$DIR/train.jsonl" --model "$MODEL" --out "$DIR/responses.jsonl" "${sampling[@]}"
run maskdpo sample "$DIR/heldout.jsonl" --model "$MODEL" --out "$DIR/before.jsonl" "${sampling[@]}"

step "Label every sentence against the reference"
run maskdpo annotate "$DIR/train.jsonl" "$DIR/responses.jsonl" --out "$DIR/annotations.jsonl" --judge lexical
run maskdpo annotate "$DIR/heldout.jsonl" "$DIR/before.jsonl" --out "$DIR/before.annotations.jsonl" --judge lexical

step "Pair the best with the worst answer of each country; see which tokens will train"
run maskdpo build-pairs "$DIR/train.jsonl" "$DIR/annotations.jsonl" --out "$DIR/pairs.jsonl" --test-size 0
run maskdpo inspect "$DIR/pairs.jsonl" --model "$MODEL" --eos drop --show 1

step "Train with Mask-DPO"
run maskdpo train "$DIR/pairs.jsonl" --model "$MODEL" --out "$DIR/model" --lr 1e-5 --epochs 2 --batch-size 10 \
    --eos drop

step "Sample the trained model on countries that it was not trained on"
run maskdpo sample "$DIR/heldout.jsonl" --model "$DIR/model" --out "$DIR/after.jsonl" "${sampling[@]}"
run maskdpo annotate "$DIR/heldout.jsonl" "$DIR/after.jsonl" --out "$DIR/after.annotations.jsonl" --judge lexical

step "Compare: before and after, on countries held out from training"
run maskdpo report "$DIR/before.annotations.jsonl" --compare "$DIR/after.annotations.jsonl" \
    --prompts "$DIR/heldout.jsonl" --out "$DIR/report.html" --title "Countries: SmolLM2-135M before and after Mask-DPO"
run maskdpo evaluate "$DIR/before.annotations.jsonl" --compare "$DIR/after.annotations.jsonl" --prompts "$DIR/heldout.jsonl"

printf '\nDone in %d s. See every sentence: %s\n' "$((SECONDS - began))" "$PWD/$DIR/report.html"
