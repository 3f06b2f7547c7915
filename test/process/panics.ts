/** Deliberate panics. */
import { LowrankError, synchronize, tensor, type Device } from "../../src/index.js";
import { session } from "../../src/native/binding.js";

/** Returns the code and message of the error that `fn` throws or rejects with. */
async function told(fn: () => unknown): Promise<string> {
  try {
    await fn();
  } catch (error) {
    if (error instanceof LowrankError) return `${error.code}: ${error.message}`;
    throw error;
  }
  return "nothing";
}

/**
 * Prints the error of a panic in a call, a sum after it, and the errors of calls after a panic in the device's
 * thread.
 */
export async function panics(device: Device): Promise<void> {
  const x = tensor([1, 2], { device });
  console.log(await told(() => session().panicOnPurpose()));
  console.log([...(await x.add(1).data())].join());
  session().panicOnPurpose(device);
  // Work in flight on a GPU may still complete.
  await told(() => synchronize(device));
  console.log(await told(() => x.add(1).data()));
  console.log(await told(() => x.add(1).data()));
}
