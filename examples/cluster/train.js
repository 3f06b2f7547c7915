// Trains on all ranks that mpirun or srun has started: mpirun -n 2 node train.js
import { finetune } from "lowrank";
import { connect } from "lowrank-mpi";

const ranks = await connect();
const run = finetune({ model: "SmolLM2-135M", data: "rows.jsonl", output: "out", ranks });
try {
  for await (const event of run) {
    if (event.type === "step" && ranks.rank === 0) console.log(event.step, event.loss);
  }
  const { adapter } = await run.result;
  if (ranks.rank === 0) console.log(adapter);
  await ranks.finish();
} catch (error) {
  console.error(`rank ${ranks.rank}: ${error.message}`);
  ranks.abort(1); // The other ranks may be waiting for this one.
}
