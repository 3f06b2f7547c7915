/** The output folder of a run as a rank sees it that writes nothing. */
import { LowrankError } from "../../errors.js";
import type { OutputFolder } from "./folder.js";

/** What a run does with its output folder. */
export type RunOutput = Pick<
  OutputFolder,
  | "writes"
  | "path"
  | "record"
  | "replacing"
  | "replaces"
  | "newest"
  | "checkFree"
  | "checkOwn"
  | "checkLabels"
  | "checkRoom"
  | "begin"
  | "saveCheckpoint"
  | "markCheckpoint"
  | "placeAdapter"
  | "release"
>;

/** The folder that another rank writes. */
export class FollowingOutput implements RunOutput {
  readonly writes = false;
  readonly record = undefined;
  readonly replacing = false;
  readonly replaces: string[] = [];
  readonly newest = undefined;

  constructor(readonly path: string) {}

  async checkFree(): Promise<void> {}
  async checkOwn(): Promise<void> {}
  async checkLabels(): Promise<void> {}
  async checkRoom(): Promise<void> {}
  async begin(): Promise<void> {}
  async markCheckpoint(): Promise<void> {}
  async placeAdapter(): Promise<void> {}
  async release(): Promise<void> {}

  saveCheckpoint(): Promise<never> {
    throw new LowrankError("ERR_INTERNAL", `${this.path}: this rank saves nothing`);
  }
}
