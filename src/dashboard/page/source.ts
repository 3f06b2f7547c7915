/** Where a page has its runs from. Served ones come over HTTP; an app may hand in events of its own. */

/** A run in one line, as the list of runs has it. */
export interface ListedRun {
  name: string;
  state: string;
  model: string | null;
  step: number;
  steps: number | null;
  loss: number | null;
  evalLoss: number | null;
  learningRate: number | null;
  rank: number | null;
  started: number;
  message: string | null;
  damaged: number;
  /** Its output folder, where the source knows it. */
  folder?: string | undefined;
  /** The step of its newest checkpoint; null where it has saved none. */
  checkpoint?: number | null | undefined;
}

export interface Listing {
  title: string;
  /** Whether `stop` does something. */
  stops: boolean;
  /** Whether `pause` and `resume` do something. */
  pauses?: boolean | undefined;
  runs: ListedRun[];
  notices: string[];
}

/** What a run told, by its `type`; `at` is when, in milliseconds since 1970. */
export interface RunEvent {
  type: string;
  at?: number | undefined;
  [field: string]: unknown;
}

/** Takes events in their order; `begin` says that what came of the run before does not hold any more. */
export type Sink = (run: string, events: RunEvent[], begin: boolean) => void;

/** Whether the events of what is watched are coming. */
export type Connection = "connected" | "lost";

export interface RunsSource {
  /** The runs as they stand; asked every few seconds. */
  list(): Promise<Listing>;
  /** Hands over what these runs told and tell; gives what ends that. */
  watch(runs: readonly string[], sink: Sink, onConnection: (connection: Connection) => void): () => void;
  /** Has the run finish its step, save and end. */
  stop(): Promise<void>;
  /** Has the run pause after its step, and continue. */
  pause?(): Promise<void>;
  resume?(): Promise<void>;
}
