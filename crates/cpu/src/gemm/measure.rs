//! Measures which variant of rounded products is fastest on this processor: f32, pairs of bf16, or AMX tiles.
//!
//! Instructions that take twice the terms are not always twice as fast; some processors multiply pairs no faster than
//! f32. The variants sum in different orders, so a choice among them affects bits. It is made on one thread, since the
//! number of threads must not change a bit, and with a wide margin, so that a busy machine does not change it. It takes
//! about 20 ms.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use half::bf16;

use super::product::Product;
use super::table::KernelTable;
use crate::random::Stream;
use crate::simd::Level;
use crate::threads::Threads;

/// A variant must be this many times as fast as a simpler one.
const MARGIN: f64 = 1.25;
/// Timed rounds; a variant's time is its shortest.
const ROUNDS: usize = 5;
/// Minimum number of rounds, and the time after which no further round starts.
const MIN_ROUNDS: usize = 2;
const BUDGET: Duration = Duration::from_millis(15);
/// [m, n, k] of the comparison: partial tiles and several blocks of K.
const ODD: [usize; 3] = [41, 71, 1061];
/// [m, n, k] of the timing: the factors and C take a mebibyte each.
const TIMED: [usize; 3] = [96, 512, 512];
/// Random numbers that the operands repeat: a prime, so that no two rows are equal.
const DRAWN: usize = 16_381;

/// The levels up to `level` that differ in products of bf16 only, simplest first.
pub fn list_candidates(level: Level) -> Vec<Level> {
    Level::ALL.iter().copied().filter(|one| *one <= level && one.exact() == level.exact()).collect()
}

/// The fastest of `levels`, the simplest first. A level is chosen over a simpler one if its products are right and it
/// is at least `MARGIN` times as fast.
pub fn measure_fastest(levels: &[Level]) -> Level {
    levels[choose_fastest(&mut Processor::new(levels), levels.len())]
}

/// Runs and times variants by index.
trait Bench {
    /// Whether a variant's result equals the first variant's, up to the order of sums.
    fn is_correct(&mut self, variant: usize) -> bool;

    fn measure(&mut self, variant: usize) -> Duration;
}

/// The index of the chosen variant. The first variant is the simplest and needs no check.
fn choose_fastest(bench: &mut impl Bench, variants: usize) -> usize {
    let correct: Vec<usize> =
        (0..variants).filter(|variant| *variant == 0 || bench.is_correct(*variant)).collect();
    let mut took = vec![Duration::MAX; variants];
    let mut spent = Duration::ZERO;
    for round in 0..ROUNDS {
        if correct.len() == 1 || round >= MIN_ROUNDS && spent > BUDGET {
            break;
        }
        for variant in &correct {
            let one = bench.measure(*variant);
            spent += one;
            took[*variant] = took[*variant].min(one);
        }
    }
    let faster = |a: usize, b: usize| took[a].as_secs_f64() * MARGIN <= took[b].as_secs_f64();
    correct
        .into_iter()
        .reduce(|taken, variant| if faster(variant, taken) { variant } else { taken })
        .unwrap_or(0)
}

/// The variants on this processor.
struct Processor {
    variants: Vec<&'static KernelTable>,
    odd: Operands,
    timed: Operands,
    expected: Vec<f32>,
}

impl Processor {
    fn new(levels: &[Level]) -> Processor {
        let variants: Vec<&'static KernelTable> =
            levels.iter().map(|one| &*Box::leak(Box::new(KernelTable::of(*one)))).collect();
        let (mut odd, timed) = (Operands::new(ODD), Operands::new(TIMED));
        odd.multiply(variants[0]);
        let expected = odd.c.clone();
        Processor { variants, odd, timed, expected }
    }
}

impl Bench for Processor {
    fn is_correct(&mut self, variant: usize) -> bool {
        self.odd.multiply(self.variants[variant]);
        // Each result is within k roundings of f32 (2⁻²⁴) of the sum of the terms' magnitudes, 0.64 on average. The
        // magnitude of a sum is about √k, more than a hundred times the bound.
        let bound = 2.0 * (ODD[2] as f32) * 2f32.powi(-24) * ODD[2] as f32;
        self.odd.c.iter().zip(&self.expected).all(|(got, expected)| (got - expected).abs() <= bound)
    }

    fn measure(&mut self, variant: usize) -> Duration {
        let start = Instant::now();
        self.timed.multiply(self.variants[variant]);
        start.elapsed()
    }
}

/// The operands of a product: normally distributed factors, and C.
struct Operands {
    sizes: [usize; 3],
    a: Vec<f32>,
    b: Vec<bf16>,
    c: Vec<f32>,
}

impl Operands {
    fn new(sizes: [usize; 3]) -> Operands {
        let [m, n, k] = sizes;
        let [left, right] = [1, 2].map(|seed| Stream { seed, counter: 0 }.normal(DRAWN, 0.0, 1.0));
        let a = left.into_iter().cycle().take(m * k).collect();
        let b = right.into_iter().map(bf16::from_f32).cycle().take(n * k).collect();
        Operands { sizes, a, b, c: vec![0.0; m * n] }
    }

    /// C = A·Bᵀ, on this thread.
    fn multiply(&mut self, table: &'static KernelTable) {
        let product =
            Product::<bf16>::row_major(self.sizes, self.a.as_ptr(), self.b.as_ptr(), self.c.as_mut_ptr());
        let alone = Threads::new(1).expect("it starts none");
        // SAFETY: the operands have the given sizes; the kernels' level is at most the process's.
        alone.install(|| unsafe { product.run_rounded(table, 1) });
    }
}
