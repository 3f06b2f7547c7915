/** The devices that a test runs on: the cpu, and the gpu unless LOWRANK_NO_GPU is set. */
export type TestDevice = "cpu" | "gpu";

export function testDevices(): TestDevice[] {
  return process.env["LOWRANK_NO_GPU"] ? ["cpu"] : ["cpu", "gpu"];
}
