/** The source of a page's runs: a server, or an app that provides events itself. */

/** The summary of a run in the list of runs. */
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
  /** The output folder, if the source knows it. */
  folder?: string | undefined;
  /** The step of the newest checkpoint; null without one. */
  checkpoint?: number | null | undefined;
}

export interface Listing {
  title: string;
  /** Whether `stop` has an effect. */
  stops: boolean;
  /** Whether `pause` and `resume` have an effect. */
  pauses?: boolean | undefined;
  runs: ListedRun[];
  notices: string[];
}

/** An event of a run; `at` is its time, in milliseconds since 1970. */
export interface RunEvent {
  type: string;
  at?: number | undefined;
  [field: string]: unknown;
}

/** Receives events in sequence; `begin` invalidates the earlier events of the run. */
export type Sink = (run: string, events: RunEvent[], begin: boolean) => void;

/** Whether the page is receiving events. */
export type Connection = "connected" | "lost";

export interface RunsSource {
  /** Returns the list of runs; called every few seconds. */
  list(): Promise<Listing>;
  /** Delivers the past and future events of these runs; returns a function that ends the delivery. */
  watch(runs: readonly string[], sink: Sink, onConnection: (connection: Connection) => void): () => void;
  /** Ends the run after its current step, with a checkpoint. */
  stop(): Promise<void>;
  /** Pauses the run after its current step. */
  pause?(): Promise<void>;
  /** Continues a paused run. */
  resume?(): Promise<void>;
}
