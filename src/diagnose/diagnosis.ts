/** What a diagnosis says: the types of `diagnose`. */
import type { Device, DeviceInfo } from "../device.js";
import type { StepResult } from "../self-test/steps.js";
import type { Rates } from "./rates.js";

/** What `diagnose` takes. */
export interface DiagnoseOptions {
  /**
   * The device to test: `cpu`, `gpu`, the best GPU, or `gpu:N`. Unless given: the cpu and every GPU in hardware, or those in
   * software where there is no other.
   */
  device?: Device | undefined;
  /** Whether to run the short form, which `auto` runs before it first uses a GPU: fewer shapes, one step, no rates. */
  quick?: boolean | undefined;
  /** Ends it with the signal's reason. */
  signal?: AbortSignal | undefined;
  /** Called before each step. */
  onProgress?: ((progress: DiagnoseProgress) => void) | undefined;
}

/** How far a diagnosis has come. */
export interface DiagnoseProgress {
  device: string;
  /** The step that begins. */
  name: string;
  /** Its number, from 1 on, and how many the device has. */
  step: number;
  steps: number;
}

/** What the driver of a GPU tells of it. */
export interface GpuDetails {
  /** As options name it: `gpu:0`. */
  device: string;
  /** PCI numbers of the vendor and the model; 0 where the interface has none. */
  vendor: number;
  model: number;
  /** The driver's name, and its version in the driver's own words. */
  driver: string;
  driverInfo: string;
  /** Whether kernels may compute in f16. */
  f16: boolean;
  /** Whether kernels may read f16. */
  f16Storage: boolean;
  /** Lanes of the smallest and of the largest subgroup; 0 where kernels may not use them. */
  subgroupMin: number;
  subgroupMax: number;
  /** Whether kernels can be timed. */
  timestamps: boolean;
  /** Shapes of cooperative matrices, such as `16x16x16 f16 -> f32`. */
  cooperativeMatrices: string[];
  /** Bytes that one binding of a kernel may span, and bytes of the largest buffer. */
  bindingLimit: number;
  bufferLimit: number;
  /** Storage buffers that a kernel may bind. */
  storageBuffers: number;
  /** Bytes of memory that a workgroup shares. */
  workgroupBytes: number;
  /** Invocations of a workgroup. */
  invocations: number;
  /** Bytes of its memory, where it is known. */
  memory?: number | undefined;
  /** What it lacks, where it cannot be used. */
  lacks?: string | undefined;
  /** Milliseconds after which the system ends a submission, as far as is known. */
  watchdogMs?: number | undefined;
}

/** A known defect of the GPU or its driver. */
export interface KnownHazard {
  id: string;
  /** What goes wrong. */
  what: string;
  /** What follows: `auto` asks for the full test, cooperative matrices are not used, or nothing. */
  effect: "full-test" | "no-matrices" | "note";
  /** Where it is described. */
  source: string;
}

/** Losses of steps of training the embedded model. */
export interface DiagnosedTraining {
  /** The loss before each step on the device. */
  losses: number[];
  /** The same on the processor. */
  expected: number[];
  /** Milliseconds of the last step. */
  stepMilliseconds: number;
}

/** What was found of a device. */
export interface DiagnosedDevice {
  info: DeviceInfo;
  /** What the driver of a GPU tells of it. */
  details?: GpuDetails | undefined;
  /** What turns WGSL into the GPU's code. */
  shaderCompiler?: string | undefined;
  hazards: KnownHazard[];
  /** Each step of the test, in order. */
  steps: StepResult[];
  training?: DiagnosedTraining | undefined;
  rates?: Rates | undefined;
  /** Milliseconds of the longest submission to a GPU during the test. */
  longestSubmission?: number | undefined;
  seconds: number;
  /** Whether every step passed or was skipped. */
  healthy: boolean;
}

/** What `lowrank doctor` prints, as an object. */
export interface Diagnosis {
  /** The version of this package. */
  version: string;
  /** The operating system, its version, and the processor's architecture. */
  system: { platform: string; release: string; arch: string };
  node: string;
  electron?: string | undefined;
  /** What `LOWRANK_…` variables are set to. */
  environment: Record<string, string>;
  quick: boolean;
  /** What went wrong before a device could be tested. */
  problems: StepResult[];
  devices: DiagnosedDevice[];
  seconds: number;
  /** Whether nothing is wrong. */
  healthy: boolean;
}
