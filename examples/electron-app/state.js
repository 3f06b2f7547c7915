// State shared by the parts of the page.

/** The number of rows per training step. */
export const ROWS_PER_STEP = 8;

export const state = {
  /** Both ends of the port, once connected. */
  client: undefined,
  questions: undefined,
  /** Paths of files that come with the app, and the folder of the runs. */
  places: undefined,
  /** The chosen model, as `inspect` reports it. */
  model: undefined,
  data: undefined,
  /** The runs in their folder, newest first; see runs.js. */
  runs: [],
  /** The output folder of the run shown on the page. */
  selected: undefined,
  /** The training run: `record` is its entry in `runs`, `run` the result of `finetune`. */
  training: undefined,
};

/** Returns the runs of the chosen model. */
export const ownRuns = () => state.runs.filter(({ model }) => model === state.model?.path);

/** Returns the run to which curve, buttons and chat belong. */
export function shownRun() {
  const runs = ownRuns();
  return runs.find(({ output }) => output === state.selected) ?? runs[0];
}

const listeners = [];
/** Calls `listener` after each change of the state. */
export const onChange = (listener) => listeners.push(listener);
export const changed = () => listeners.forEach((listener) => listener());
