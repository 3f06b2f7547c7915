/** Panics on purpose. */
import { LowrankError, synchronize, tensor, type Device } from "../../src/index.js";
import { session } from "../../src/native.js";

/** What `fn` throws or rejects with: its code and message. */
async function told(fn: () => unknown): Promise<string> {
  try {
    await fn();
  } catch (error) {
    if (error instanceof LowrankError) return `${error.code}: ${error.message}`;
    throw error;
  }
  return "nothing";
}

/** Prints what a panic in a call says, a sum after it, and what calls say after one of the device's thread. */
export async function panics(device: Device): Promise<void> {
  const x = tensor([1, 2], { device });
  console.log(await told(() => session().panicOnPurpose()));
  console.log([...(await x.add(1).data())].join());
  session().panicOnPurpose(device);
  // What a gpu has in flight may still be answered.
  await told(() => synchronize(device));
  console.log(await told(() => x.add(1).data()));
  console.log(await told(() => x.add(1).data()));
}
