// A workgroup has BM = TY · RM rows of its own; BN = 4 · TX others pass by at a time. Invocation (ty, tx) holds the
// scores of rows ty · RM + i and passing rows 4 · tx + 0..3, and of the sums of its rows vectors tx + TX · c.
const D4 = DIM / 4u;
const TY = THREADS / TX;
const BM = TY * RM;
const BN = 4u * TX;
// Vectors of a row that scores take at a time, and from one staged row to the next: odd, so that rows fall on
// different banks.
const K4 = 8u;
const ROW = K4 + 1u;
const SCORE_ROW = TX + 1u;
// Where in `pool` the rows are that sums take, KEYS at a time, after the weights.
const STREAM = BM * SCORE_ROW;

// Rows for scores; then weights, and rows for sums.
var<workgroup> pool: array<vec4<f32>, POOL>;
// Where own rows and passing ones start.
var<workgroup> own_at: array<u32, BM>;
var<workgroup> passing_at: array<u32, BN>;
