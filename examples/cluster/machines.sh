#!/bin/sh
# One rank on each machine of the file hosts (one name a line), with all cores of the machine. Open MPI's options.
set -e
mpirun --hostfile hosts --map-by ppr:1:node --bind-to none \
  node_modules/.bin/lowrank finetune --model SmolLM2-135M --data rows.jsonl --output out
