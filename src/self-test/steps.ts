/** The output of a self-test's process: one line of JSON when a step begins, and one when it ends. */

/** A result of a GPU that differs from the CPU's. */
export interface WrongNumbers {
  /** The name of the value: `output`, `gradient of q`, … */
  value: string;
  /** The largest difference, relative to the CPU's largest value. */
  error: number;
  /** The allowed difference. */
  tolerance: number;
  /** The index of the largest difference. */
  at: number;
  /** The GPU's number there. */
  got: number;
  /** The CPU's number there. */
  expected: number;
}

/** The result of a step. */
export interface StepResult {
  /** The name of the test, such as `softmax over rows`. */
  name: string;
  /** The family of kernels, a folder of the engine's `kernels`; or `device`, `optim`, `training`. */
  family: string;
  /**
   * `passed`; `wrong`: the numbers differ from the CPU's; `failed`: an error; `crashed`: the process ended; `hung`: the time
   * limit was exceeded; `skipped`: the device lacks a feature, or the test could not continue.
   */
  status: "passed" | "wrong" | "failed" | "crashed" | "hung" | "skipped";
  /** Kernels that the step launched, forward and backward. */
  kernels?: string[] | undefined;
  /** The largest relative difference found. */
  error?: number | undefined;
  /** The difference, if it is too large. */
  wrong?: WrongNumbers | undefined;
  /** An error's message, a signal, or the missing feature. */
  reason?: string | undefined;
  /** Duration of the step. */
  milliseconds: number;
}

/** A line of the process. */
export type Line =
  | { event: "begin"; name: string; family: string }
  | { event: "end"; result: StepResult; data?: unknown }
  | { event: "plan"; steps: { name: string; family: string }[] }
  | { event: "done" };

/** The first argument of the process. */
export interface Order {
  /** The device: a GPU, whose numbers are compared with the CPU's, or `cpu`, compared with stored numbers. */
  device: string;
  /** Whether to run the short test. */
  quick: boolean;
  /** Names of steps that have already run. */
  leaveOut: string[];
}

/** Whether a step shows that the device is unreliable. */
export function isBad({ status }: StepResult): boolean {
  return status !== "passed" && status !== "skipped";
}

/** Describes the result of a step, as part of a sentence. */
export function describe({ name, status, kernels = [], wrong, reason }: StepResult): string {
  const kernelNote = kernels.length > 0 ? ` (kernels ${kernels.join(", ")})` : "";
  switch (status) {
    case "wrong":
      return wrong === undefined
        ? `${name}${kernelNote} gives wrong numbers`
        : `${name}${kernelNote} gives wrong numbers: ${wrong.value} is ${wrong.got} for ${wrong.expected} at ${wrong.at}`;
    case "failed":
      return `${name}${kernelNote} failed: ${reason ?? "no reason was given"}`;
    case "crashed":
      return `${name}${kernelNote} ended the process${reason === undefined ? "" : `: ${reason}`}`;
    case "hung":
      return `${name}${kernelNote} did not end${reason === undefined ? "" : `: ${reason}`}`;
    case "skipped":
      return `${name} was not run${reason === undefined ? "" : `: ${reason}`}`;
    default:
      return `${name} passed`;
  }
}

/** Parses complete lines of the process and ignores other output, such as a driver's. */
export function parseLines(text: string): Line[] {
  return text.split("\n").flatMap((line) => {
    if (!line.startsWith('{"event":')) return [];
    try {
      return [JSON.parse(line) as Line];
    } catch {
      return [];
    }
  });
}
