/**
 * Known defects of GPUs and their drivers, each with its source. The table is used by `lowrank doctor` and by the selection
 * of a device.
 */

/** The properties of a GPU that are known when it is selected. */
export interface Adapter {
  name: string;
  /** Vulkan, Metal, DX12 or DX12 (FXC). */
  backend: string;
  /** The driver and its version. */
  driver: string;
  /** The PCI number of the vendor; 0 if unknown. */
  vendor: number;
  /** Node's name of the operating system. */
  platform: NodeJS.Platform;
}

export interface Hazard {
  /** A name for reports. */
  id: string;
  /** Whether a GPU has the defect, judging by its properties. */
  applies: (adapter: Adapter) => boolean;
  /** The defect. */
  what: string;
  /**
   * The consequence. `full-test`: `auto` requires that the GPU has passed the full test; `no-matrices`: cooperative matrices
   * are not used; `note`: only reported, since the engine avoids the problem on every GPU.
   */
  effect: "full-test" | "no-matrices" | "note";
  source: string;
}

const VENDORS = { amd: 0x1002, intel: 0x8086, qualcomm: 0x5143, arm: 0x13b5 } as const;

const isVulkan = ({ backend }: Adapter): boolean => backend === "Vulkan";
const isMesa = ({ driver }: Adapter): boolean => /mesa/i.test(driver);

/** Every known hazard. */
export const HAZARDS: readonly Hazard[] = [
  {
    id: "metal-silent-failure",
    applies: ({ backend }) => backend === "Metal",
    what: "a failed command buffer is reported as completed; each submission ends with a marker that the next read checks",
    effect: "note",
    source: "https://github.com/gfx-rs/wgpu/issues/9545",
  },
  {
    id: "metal-watchdog",
    applies: ({ backend }) => backend === "Metal",
    what: "the watchdog ended one f16 product of 2048 × 4096 × 4096 on an M1 Max; submissions are cut by measured time",
    effect: "note",
    source: "https://github.com/tracel-ai/cubecl/issues/1523",
  },
  {
    id: "metal-training",
    applies: ({ backend }) => backend === "Metal",
    what: "another library's training on wgpu and Metal gave NaN and gradients of zero",
    effect: "full-test",
    source: "https://github.com/tracel-ai/burn/issues/5162",
  },
  {
    id: "dx12-watchdog",
    applies: ({ backend }) => backend.startsWith("DX12"),
    what: "Windows resets the GPU when a submission takes more than 2 s (TdrDelay); submissions are cut by measured time",
    effect: "note",
    source: "https://learn.microsoft.com/windows-hardware/drivers/display/tdr-registry-keys",
  },
  {
    id: "intel-xe3-mesa",
    applies: (a) =>
      isVulkan(a) && isMesa(a) && a.vendor === VENDORS.intel && /xe3|panther|\bPTL\b/i.test(a.name),
    what: "products were wrong on Xe3 under Mesa",
    effect: "full-test",
    source: "https://github.com/tracel-ai/cubecl/issues/1444",
  },
  {
    id: "intel-matrices",
    applies: (a) => isVulkan(a) && a.vendor === VENDORS.intel,
    what: "cooperative matrices hang, lose the device, or are slower by orders of magnitude",
    effect: "no-matrices",
    source:
      "https://github.com/ggml-org/llama.cpp/pull/24404, https://github.com/ggml-org/llama.cpp/issues/16681, " +
      "https://github.com/IGCIT/Intel-GPU-Community-Issue-Tracker-IGCIT/issues/1487",
  },
  {
    id: "amd-windows-matrices",
    applies: (a) => isVulkan(a) && a.vendor === VENDORS.amd && a.platform === "win32",
    what: "the driver crashed when its cooperative matrices were queried; they are queried in a separate process",
    effect: "no-matrices",
    source: "https://github.com/ggml-org/llama.cpp/issues/22750",
  },
  {
    id: "amd-compute-timeout",
    applies: (a) => isVulkan(a) && a.vendor === VENDORS.amd && a.platform === "linux",
    what: "compute rings timed out under long submissions; submissions are cut by measured time",
    effect: "note",
    source: "https://github.com/ggml-org/llama.cpp/issues/21724",
  },
  {
    id: "mobile-device-lost",
    applies: (a) => isVulkan(a) && (a.vendor === VENDORS.qualcomm || a.vendor === VENDORS.arm),
    what: "the device was lost under batches of more than 32 rows, and products of few columns were wrong",
    effect: "full-test",
    source:
      "https://github.com/ggml-org/llama.cpp/issues/12139, https://github.com/ggml-org/llama.cpp/issues/25906",
  },
];

/** Returns the known hazards of a GPU. */
export function listHazards(adapter: Adapter): Hazard[] {
  return HAZARDS.filter(({ applies }) => applies(adapter));
}
