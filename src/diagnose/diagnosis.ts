/** The types of `diagnose`. */
import type { Device, DeviceInfo } from "../device/device.js";
import type { StepResult } from "../self-test/steps.js";
import type { Rates } from "./rates.js";

/** The options of `diagnose`. */
export interface DiagnoseOptions {
  /**
   * The device to test: `cpu`, `gpu`, the best GPU, or `gpu:N`. By default the CPU and every hardware GPU; software GPUs if
   * there is no other.
   */
  device?: Device | undefined;
  /** Whether to run the short test, which `auto` runs before it first uses a GPU: fewer shapes and training steps, no rates. */
  quick?: boolean | undefined;
  /** Aborts the diagnosis with the signal's reason. */
  signal?: AbortSignal | undefined;
  /** Called before each step. */
  onProgress?: ((progress: DiagnoseProgress) => void) | undefined;
}

/** The progress of a diagnosis. */
export interface DiagnoseProgress {
  /** The device that is being tested. */
  device: string;
  /** The name of the step that begins. */
  name: string;
  /** The step's number, counted from 1. */
  step: number;
  /** The number of steps for the device. */
  steps: number;
}

/** The properties of a GPU, as its driver reports them. */
export interface GpuDetails {
  /** The name in options: `gpu:0`. */
  device: string;
  /** The PCI number of the vendor; 0 if the interface has none. */
  vendor: number;
  /** The PCI number of the model; 0 if the interface has none. */
  model: number;
  /** The driver's name. */
  driver: string;
  /** The driver's version, as the driver writes it. */
  driverInfo: string;
  /** Whether kernels may compute in f16. */
  f16: boolean;
  /** Whether kernels may read f16. */
  f16Storage: boolean;
  /** Lanes of the smallest subgroup; 0 if kernels may not use subgroups. */
  subgroupMin: number;
  /** Lanes of the largest subgroup; 0 if kernels may not use subgroups. */
  subgroupMax: number;
  /** Whether kernels can be timed. */
  timestamps: boolean;
  /** Shapes of cooperative matrices, such as `16x16x16 f16 -> f32`. */
  cooperativeMatrices: string[];
  /** Bytes that one binding of a kernel may span. */
  bindingLimit: number;
  /** Bytes of the largest buffer. */
  bufferLimit: number;
  /** Storage buffers that a kernel may bind. */
  storageBuffers: number;
  /** Bytes of memory that a workgroup shares. */
  workgroupBytes: number;
  /** Invocations of a workgroup. */
  invocations: number;
  /** The GPU's memory in bytes, if known. */
  memory?: number | undefined;
  /** The missing feature, if the GPU cannot be used. */
  lacks?: string | undefined;
  /** Milliseconds after which the system ends a submission, if known. */
  watchdogMs?: number | undefined;
}

/** A known defect of the GPU or its driver. */
export interface KnownHazard {
  /** A stable name. */
  id: string;
  /** The defect. */
  what: string;
  /** The consequence: `auto` requires the full test, cooperative matrices are not used, or a note only. */
  effect: "full-test" | "no-matrices" | "note";
  /** The source of the description. */
  source: string;
}

/** Losses of training steps with the embedded model. */
export interface DiagnosedTraining {
  /** The loss before each step on the device. */
  losses: number[];
  /** The losses on the CPU. */
  expected: number[];
  /** Milliseconds of the last step. */
  stepMilliseconds: number;
}

/** The result for one device. */
export interface DiagnosedDevice {
  /** The device. */
  info: DeviceInfo;
  /** The properties of a GPU, as its driver reports them. */
  details?: GpuDetails | undefined;
  /** The compiler from WGSL to the GPU's code. */
  shaderCompiler?: string | undefined;
  /** Known defects of the GPU or its driver. */
  hazards: KnownHazard[];
  /** All steps of the test, by order of execution. */
  steps: StepResult[];
  /** The training steps; undefined if they were not reached. */
  training?: DiagnosedTraining | undefined;
  /** Measured rates; undefined in the short test. */
  rates?: Rates | undefined;
  /** Milliseconds of the longest submission to a GPU during the test. */
  longestSubmission?: number | undefined;
  /** Duration of the test. */
  seconds: number;
  /** Whether every step passed or was skipped. */
  healthy: boolean;
}

/** The output of `lowrank doctor` as an object. */
export interface Diagnosis {
  /** The version of this package. */
  version: string;
  /** The operating system and the processor. */
  system: {
    /** The operating system, as `process.platform`. */
    platform: string;
    /** The version of the operating system. */
    release: string;
    /** The processor's architecture, as `process.arch`. */
    arch: string;
  };
  /** The version of Node. */
  node: string;
  /** The version of Electron; undefined outside of it. */
  electron?: string | undefined;
  /** The values of `LOWRANK_…` variables that are set. */
  environment: Record<string, string>;
  /** Whether only the short test was run. */
  quick: boolean;
  /** Failures before a device could be tested. */
  problems: StepResult[];
  /** The results for each device. */
  devices: DiagnosedDevice[];
  /** Duration of the diagnosis. */
  seconds: number;
  /** Whether no device has a problem. */
  healthy: boolean;
}
