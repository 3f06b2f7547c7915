// A workgroup has BM = TY · RM own rows and processes passing rows in steps of BN = 4 · TX. Invocation (ty, tx) has the
// scores of own rows ty · RM + i and passing rows 4 · tx + 0..3, and vectors tx + TX · c of these rows' sums.
const D4 = DIM / 4u;
const TY = THREADS / TX;
const BM = TY * RM;
const BN = 4u * TX;
// Vectors of a row in one step of the scores, and the stride of staged rows in vectors: odd, so that rows start in
// different banks.
const K4 = 8u;
const ROW = K4 + 1u;
const SCORE_ROW = TX + 1u;
// The offset in `pool` of the rows that sums read, KEYS rows in one step, after the weights.
const STREAM = BM * SCORE_ROW;

// First rows for the scores; then weights, and rows for the sums.
var<workgroup> pool: array<vec4<f32>, POOL>;
// The offsets of own rows and of passing rows.
var<workgroup> own_at: array<u32, BM>;
var<workgroup> passing_at: array<u32, BN>;
