// What the parts of the page share.

/** Rows that a step of training averages over. */
export const ROWS_PER_STEP = 8;

export const state = {
  /** Both ends of the port, once it is there. */
  client: undefined,
  questions: undefined,
  /** Paths that come with the app, and the folder of the runs. */
  places: undefined,
  /** What was chosen, as `inspect` reports it. */
  model: undefined,
  data: undefined,
  /** The runs in their folder, the newest first: see runs.js. */
  runs: [],
  /** The output folder of the run that is on the page. */
  selected: undefined,
  /** The run that trains: `record` is its entry of `runs`, `run` what `finetune` gave. */
  training: undefined,
};

/** The runs of the model that was chosen. */
export const ownRuns = () => state.runs.filter(({ model }) => model === state.model?.path);

/** The run whose curve, buttons and chat are on the page. */
export function shownRun() {
  const runs = ownRuns();
  return runs.find(({ output }) => output === state.selected) ?? runs[0];
}

const listeners = [];
/** Calls `listener` after each change of the state. */
export const onChange = (listener) => listeners.push(listener);
export const changed = () => listeners.forEach((listener) => listener());
