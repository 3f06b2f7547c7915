/** Runs a command on the ranks that a launcher such as `mpirun` has started. */
import { connectLaunched } from "../../ranks/launcher.js";
import type { Ranks } from "../../ranks/ranks.js";
import { isAgreed } from "../../train/ranks/run-ranks.js";
import { AnsweredNo, reportFailure, Interrupted } from "./failure.js";

/**
 * Runs `work` with the connected ranks; without a launcher, with none. An error that all ranks throw is printed by rank 0.
 * Any other error is printed with its rank, and ends the processes of all ranks.
 */
export async function runOnRanks(work: (ranks: Ranks | undefined) => Promise<void>): Promise<void> {
  const ranks = await connectLaunched();
  if (ranks === undefined) return work(undefined);
  try {
    await work(ranks);
  } catch (error) {
    if (!isAgreed(error) && !(error instanceof Interrupted)) {
      const status = reportFailure(error, `rank ${ranks.rank} (${ranks.host}): `);
      ranks.abort(status);
    }
    await ranks.finish();
    if (ranks.rank === 0) throw error;
    throw error instanceof Interrupted ? error : new AnsweredNo();
  }
  await ranks.finish();
}
