/** The output of a self-test's process: a line of JSON when a step begins, and one when it ends. */

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
   * `passed`; `wrong`: other numbers than the processor's; `failed`: an error; `crashed`: the process ended; `hung`: no end
   * within the time limit; `skipped`: the device lacks what it needs, or the test could not go on.
   */
  status: "passed" | "wrong" | "failed" | "crashed" | "hung" | "skipped";
  /** Kernels that the step launched, forward and backward. */
  kernels?: string[] | undefined;
  /** The largest relative difference that was found. */
  error?: number | undefined;
  /** What is wrong. */
  wrong?: WrongNumbers | undefined;
  /** An error's message, a signal, or what is missing. */
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
  /** The GPU that is compared with the processor, or `cpu`, which is compared with stored numbers. */
  device: string;
  /** Whether to run the short form. */
  quick: boolean;
  /** Steps that have been run, by name. */
  leaveOut: string[];
}

/** Whether a step found that the device must not be trusted. */
export function isBad({ status }: StepResult): boolean {
  return status !== "passed" && status !== "skipped";
}

/** A step that went wrong, in a part of a sentence. */
export function describe({ name, status, kernels = [], wrong, reason }: StepResult): string {
  const of = kernels.length > 0 ? ` (kernels ${kernels.join(", ")})` : "";
  switch (status) {
    case "wrong":
      return wrong === undefined
        ? `${name}${of} gives wrong numbers`
        : `${name}${of} gives wrong numbers: ${wrong.value} is ${wrong.got} for ${wrong.expected} at ${wrong.at}`;
    case "failed":
      return `${name}${of} failed: ${reason ?? "no reason was given"}`;
    case "crashed":
      return `${name}${of} ended the process${reason === undefined ? "" : `: ${reason}`}`;
    case "hung":
      return `${name}${of} did not end${reason === undefined ? "" : `: ${reason}`}`;
    case "skipped":
      return `${name} was not run${reason === undefined ? "" : `: ${reason}`}`;
    default:
      return `${name} passed`;
  }
}

/** The lines of `text` that are whole and of this form; what a driver prints besides is passed over. */
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
