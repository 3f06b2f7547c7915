/** Checks that a run's device exists and that a loaded model is on it. */
import { refuse } from "../arguments/check.js";
import { findDevices, resolveDevice, type Device } from "../device/device.js";
import { LowrankError } from "../errors.js";
import type { PretrainedModel } from "../models/pretrained.js";
import type { Settings } from "./settings.js";

/** Throws `ERR_NO_GPU` or `ERR_DEVICE_MISMATCH`, and `ERR_OPTION` for a meta device, which cannot compute. */
export async function checkModelDevice({ model, device }: Settings): Promise<void> {
  const requested = typeof model === "string" ? device : model.device;
  await findDevices(requested);
  if (resolveDevice(requested).startsWith("meta:"))
    refuse("finetune", "device", "one that computes (auto, cpu, gpu or gpu:N)", requested);
  if (typeof model !== "string") checkDevice(model, device);
}

/** Checks that `device` names the device that a loaded model is on. */
function checkDevice(model: PretrainedModel, device: Device): void {
  if (device === "auto" || resolveDevice(device) === model.device) return;
  throw new LowrankError(
    "ERR_DEVICE_MISMATCH",
    `finetune: the model is on ${model.device}, and device is ${device}; move it with to()`,
  );
}
