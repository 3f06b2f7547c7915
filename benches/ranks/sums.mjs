// One rank that times sums of several sizes; rank 0 prints pairs of the number of values and the median seconds.
import { connect } from "lowrank-mpi";

const SIZES = [1e3, 1e4, 1e5, 1e6, 4e6];
const TIMES = 9;

const ranks = await connect();
const medians = [];
for (const size of SIZES) {
  const values = new Float32Array(size).fill(ranks.rank);
  const seconds = [];
  for (let time = 0; time <= TIMES; time++) {
    await ranks.gather(new Uint8Array(1));
    const began = performance.now();
    await ranks.sum(values, true);
    // The first sum opens connections.
    if (time > 0) seconds.push((performance.now() - began) / 1000);
  }
  medians.push([size, seconds.sort((a, b) => a - b)[Math.floor(TIMES / 2)]]);
}
if (ranks.rank === 0) console.log(JSON.stringify(medians));
await ranks.finish();
