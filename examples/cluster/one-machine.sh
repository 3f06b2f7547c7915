#!/bin/sh
# Two ranks on this machine.
set -e
mpirun -n 2 node_modules/.bin/lowrank finetune --model SmolLM2-135M --data rows.jsonl --output out
