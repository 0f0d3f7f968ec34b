#!/usr/bin/env bash
# This script trains on several machines under Slurm: `sbatch examples/multi_node.sh`. We have not run it: adapt names and sizes.
# Submit the script again to go on from the last checkpoint, also with another number of machines.
#SBATCH --job-name=maskdpo
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
set -euo pipefail

PAIRS=${PAIRS:-pairs.jsonl} # PAIRS, MODEL and OUT must be on a file system that all machines see
MODEL=${MODEL:-meta-llama/Llama-3.1-8B-Instruct}
OUT=${OUT:-model}

HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((SLURM_CPUS_PER_TASK / 8))} # torchrun would give each process a single core
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=600 # seconds to finish a step and save it after an interruption
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} # machines of a cluster seldom reach the Hub: fetch the model beforehand

srun torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node 8 \
    --rdzv-backend c10d --rdzv-endpoint "$HEAD:29500" --rdzv-id "$SLURM_JOB_ID" \
    -m maskdpo train "$PAIRS" --model "$MODEL" --out "$OUT" \
    --lr 5e-7 --batch-size 64 --tokens-per-batch 8192 --gradient-checkpointing --save-every 50
