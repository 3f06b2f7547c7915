//! Sampling of a token from a row of logits, after a repetition penalty, temperature, top-k, top-p and min-p.
//!
//! Maths, for a row of V logits l: for tokens that were seen, s = l·penalty if l < 0 and l / penalty otherwise.
//! D = ⌊(max s − s) / T · 2²⁴⌋ is the distance to the most likely token in steps of 2⁻²⁴ nats, at most 2³² − 1.
//! w = 2³¹ · e^(−D · 2⁻²⁴), rounded down. Tokens up to a distance are kept: the smallest of the distance of the k-th
//! nearest token (top-k), the least distance within which the weights reach the share P of the weight of top-k's tokens
//! (top-p), and −ln min-p. So a token that is as likely as the last kept one is also kept. With a random word R, the
//! first kept token with a cumulative weight above ⌊Σ w · R / 2⁶⁴⌋ is returned.
//!
//! All computations after D use integers: e^x by a polynomial of degree 6 in fixed point (error 2 · 10⁻⁹, less than
//! f32's precision), sums in 64 bits. So the order of summation, the device and the number of threads change no bit:
//! equal logits and R give the same token everywhere. Weights below 2⁻³¹ of the largest are 0: at most 2⁻³¹ · V of the
//! total weight is lost.
//!
//! Layout: logits [n, V]; one workgroup per row. Its options and R are 8 words of `rows` [n, 8], so that rows of
//! different requests share a launch. Cost: no sort. Thresholds are found by digits of 8 bits, with four passes over
//! the row each; the token is found by narrowing its range to a 256th three times. The CPU implementation starts with digits of
//! 12 bits and sorts the tokens that share the deciding digit. A row with NaN has no token: `bad` is the index of its
//! first NaN, V if all logits are −∞, and −1 otherwise.

mod native;

use std::rc::Rc;

use lowrank_cpu::random::words;
use smallvec::SmallVec;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::shader::HIGH_WORD;
use crate::kernel::{Access, Implementations, Kernel, Launch, Variant};
use crate::launch::for_each_row_window;
use crate::scalars;

const THREADS: u32 = 256;
/// 2^−f = 1 − f·(C₀ − f·(C₁ − …)) for f in [0, 1], in units of 2⁻³²: minimises the largest relative error.
pub(super) const EXP2: [u32; 6] = [2_977_043_973, 1_031_755_803, 238_330_986, 41_142_262, 5_475_001, 468_251];
/// log₂ e in units of 2⁻³¹.
pub(super) const LOG2_E: u32 = 3_098_164_010;
/// The distance that is larger than all others.
pub const FARTHEST: u32 = u32::MAX;

/// The options of a row, as the kernel uses them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Steps of distance per unit of difference: 2²⁴ / T.
    pub steps: f32,
    /// Factors of negative and of other logits for tokens that were seen.
    pub penalty: [f32; 2],
    /// The number of tokens to keep; 0 keeps all.
    pub top_k: u32,
    /// The share to reach, in units of 2⁻³²; 0 keeps all.
    pub top_p: u32,
    /// The largest distance to keep.
    pub farthest: u32,
}

/// Words of a row's options.
pub const WORDS: usize = 8;

impl Sampling {
    /// Returns a row of `rows`: the random word, low half first, and the options.
    pub fn to_words(self, random: u64) -> [u32; WORDS] {
        let Sampling { steps, penalty: [below, above], top_k, top_p, farthest } = self;
        let [low, high] = words(random);
        [low, high, steps.to_bits(), below.to_bits(), above.to_bits(), top_k, top_p, farthest]
    }

    /// The inverse of `words`.
    fn from_words(words: &[u32; WORDS]) -> (Sampling, u64) {
        let [low, high, steps, below, above, top_k, top_p, farthest] = *words;
        let penalty = [below, above].map(f32::from_bits);
        let random = low as u64 | (high as u64) << 32;
        (Sampling { steps: f32::from_bits(steps), penalty, top_k, top_p, farthest }, random)
    }
}

scalars! {
    pub(super) struct Scalars { n: usize }
}

static SAMPLE: Kernel = Kernel {
    name: "sample",
    bindings: &[
        ("logits", Access::Read),
        ("rows", Access::Read),
        ("token", Access::Write),
        ("bad", Access::Write),
    ],
    scalars: Scalars::members,
    implementations: Implementations::Both {
        wgsl: |_| {
            emit_wgsl("fn score(at: u32, row: Row) -> f32 { return load_logits(at); }\nfn see(at: u32) { }\n")
        },
        native: |l| native::sample(l, false),
    },
    variants: || list_variants(&[DType::F32, DType::I32, DType::I32, DType::I32]),
};

/// `seen` is 1 for tokens that were seen; the kernel sets it for the new token.
static SAMPLE_UNSEEN: Kernel = Kernel {
    name: "sample with a penalty",
    bindings: &[
        ("logits", Access::Read),
        ("rows", Access::Read),
        ("token", Access::Write),
        ("bad", Access::Write),
        ("seen", Access::ReadWrite),
    ],
    scalars: Scalars::members,
    implementations: Implementations::Both {
        wgsl: |_| {
            emit_wgsl(
                "fn score(at: u32, row: Row) -> f32 {
  let v = load_logits(at);
  if load_seen(at) == 0 { return v; }
  return v * select(row.above, row.below, v < 0.0);
}
fn see(at: u32) { store_seen(at, 1); }
",
            )
        },
        native: |l| native::sample(l, true),
    },
    variants: || list_variants(&[DType::F32, DType::I32, DType::I32, DType::I32, DType::I32]),
};

pub const KERNELS: &[&Kernel] = &[&SAMPLE, &SAMPLE_UNSEEN];

fn list_variants(dtypes: &[DType]) -> Vec<Variant> {
    vec![Variant { params: [0; 4], dtypes: dtypes.to_vec(), threads: THREADS }]
}

fn emit_wgsl(score: &str) -> String {
    let mut constants = format!("const LOG2_E = {LOG2_E}u;\n");
    for (i, c) in EXP2.iter().enumerate() {
        constants += &format!("const EXP2_{i} = {c}u;\n");
    }
    constants + include_str!("row.wgsl") + score + HIGH_WORD + include_str!("sample.wgsl")
}

/// Appends token [n], sampled from each row of logits [n, V], and bad [n]. `options` i32 [n, 8] has `Sampling::words`
/// of each row. With `seen` [n, V], penalties are applied, and the token is marked in it.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY` if V elements exceed the binding limit.
pub fn sample(
    cx: &Rc<Context>,
    [logits, options]: [&Value; 2],
    seen: Option<&Value>,
    [token, bad]: [&Value; 2],
) -> Result<()> {
    let [rows, n] = [logits.shape[0], logits.shape[1]];
    let kernel = if seen.is_some() { &SAMPLE_UNSEEN } else { &SAMPLE };
    let values: SmallVec<[&Value; 5]> = [logits, options, token, bad].into_iter().chain(seen).collect();
    let scalars = Scalars { n };
    for_each_row_window(cx, kernel.name, rows, &values, &[], |w| {
        cx.launch(Launch {
            kernel,
            params: [0; 4],
            bindings: w.ranges,
            scalars: scalars.words(),
            groups: w.count[0] as u32,
            threads: THREADS,
            work: (w.count[0] * n * 64) as u64,
        });
    })?;
    if let Some(seen) = seen {
        seen.storage.record_write();
    }
    Ok(())
}
