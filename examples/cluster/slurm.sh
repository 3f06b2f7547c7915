#!/bin/bash
#SBATCH --job-name=lowrank
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
#SBATCH --signal=USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append

# Submit it from a folder that all nodes share. The first job starts the run; a job that is queued again continues it.
if ls -d out/checkpoint-* 2>/dev/null | grep -qv '\.tmp'; then
  run=(--resume out)
else
  run=(--model SmolLM2-135M --data rows.jsonl --output out --yes)
fi

srun --mpi=pmix --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  node_modules/.bin/lowrank finetune "${run[@]}"
status=$?

# 140: SIGUSR2 came 120 seconds before the time limit, and the run has saved a checkpoint.
if [ "$status" -eq 140 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
