/** The Python that runs the peers: `LOWRANK_PEER_PYTHON`, or the Python of an environment created for them. */
export function peerPython(): string;
/** The folder that the races keep between runs: the peers' environment, models with random weights. */
export function raceFolder(): string;
/** Builds the Rust program in the folder of that name. Returns its path. */
export function built(name: "burn" | "rates"): string;
/** QVAC: its runtime, its folder, and its model and text. */
export function qvac(): { bare: string; installed: string; folder: string };
/** A folder with a model of SmolLM2-135M's shape and random weights. */
export function randomModel(): string;
/** `peerPython` with llama.cpp, which is compiled if it is missing. */
export function llamaPython(): string;
/** SmolLM2-135M-Instruct in Q4_1, a GGUF file that is downloaded if it is missing. */
export function smollm2(): string;
/** A folder with the same weights in f32. */
export function smollm2Unpacked(): string;
