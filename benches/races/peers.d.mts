/** The Python that runs the peers: `LOWRANK_PEER_PYTHON`, or that of the environment that the script makes. */
export function peerPython(): string;
/** The folder that the races keep between runs: the peers' environment, models with random weights. */
export function raceFolder(): string;
