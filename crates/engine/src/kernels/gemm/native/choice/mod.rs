//! By which loops rounded products run: those of f32, of pairs of bf16, or of tiles, whichever is found to be the
//! fastest here. Instructions that take twice the terms are not always twice as fast; there are processors whose
//! pairs are no faster than f32.
//!
//! They sum in other orders, so that the choice is one of bits, too. It is made once in a process, before its first
//! such product, within some 20 ms: by one thread, since how many there are must change no bit; with a wide margin, so
//! that a busy machine changes none either; and it is kept for the processes to come, by processor and version of this
//! package (`tune/store`). Where `LOWRANK_ISA` names a level, or `LOWRANK_TUNE` is off, nothing is measured and the
//! level's own are taken. Attention's rounded products take that level's form, too.

#[cfg(test)]
mod tests;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use half::bf16;

use super::loops::{Loops, best};
use super::product::Product;
use crate::device::cpu::system;
use crate::kernel::native::Threads;
use crate::random::Stream;
use crate::simd::{Level, level};
use crate::tune::{Forms, Owner, Setting, Store};

/// How many times as fast as a simpler form one has to be.
const MARGIN: f64 = 1.25;
/// Each form's time is its shortest of so many, which are taken in turns.
const ROUNDS: usize = 5;
/// Rounds that there are in any case, and the time from which on there are no more.
const LEAST: usize = 2;
const BUDGET: Duration = Duration::from_millis(15);
/// [m, n, k] of what is compared: ends that fill no tile, and several parts of K.
const ODD: [usize; 3] = [41, 71, 1061];
/// Of what is timed: its factors and C are a mebibyte.
const TIMED: [usize; 3] = [96, 512, 512];
/// Numbers that are drawn, which operands repeat: a prime, so that no two rows are alike.
const DRAWN: usize = 16_381;
/// The class in the file.
const CLASS: &str = "gemm rounded to bf16";

/// The loops of this process's rounded products.
pub fn loops() -> &'static Loops {
    static CHOSEN: OnceLock<&'static Loops> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let asked = std::env::var("LOWRANK_ISA").is_ok_and(|asked| !asked.is_empty());
        let off = matches!(Setting::of_environment(), Ok(Setting::Off));
        let levels = candidates(level());
        if asked || off || levels.len() < 2 {
            return best();
        }
        let owner = Owner {
            adapter: processor(),
            driver: level().label().into(),
            package: env!("CARGO_PKG_VERSION").into(),
        };
        let chosen = kept(Store::of(owner).as_ref(), &levels, || Processor::new(&levels));
        if chosen == level() { best() } else { Box::leak(Box::new(Loops::of(chosen))) }
    })
}

/// The level of those loops: what multiplies the fastest here in a rounded product does in others.
pub fn rounded_level() -> Level {
    loops().level
}

/// The levels up to one that differ in products of bf16 alone, the simplest first.
fn candidates(level: Level) -> Vec<Level> {
    Level::ALL.iter().copied().filter(|one| *one <= level && one.exact() == level.exact()).collect()
}

/// The processor's name and its signature, since one name may be that of several generations.
fn processor() -> String {
    let name = system::processor();
    #[cfg(target_arch = "x86_64")]
    {
        // Its safety differs between the versions of Rust that this compiles with.
        #[allow(unused_unsafe)]
        // SAFETY: every processor of 64 bits has the instruction and this leaf.
        let signature = unsafe { std::arch::x86_64::__cpuid(1) }.eax;
        format!("{name} {signature:x}")
    }
    #[cfg(not(target_arch = "x86_64"))]
    name
}

/// That of the file, if it is one of them; else what is found, which the file is told.
fn kept<B: Bench>(store: Option<&Store>, levels: &[Level], bench: impl FnOnce() -> B) -> Level {
    let before = store.and_then(|store| store.read().forms.get(CLASS).cloned());
    if let Some(level) = levels.iter().find(|level| before.as_deref() == Some(level.name())) {
        return *level;
    }
    let level = levels[fastest(&mut bench(), levels.len())];
    if let Some(store) = store {
        store.add(&Forms::from([(CLASS.into(), level.name().into())]).into());
    }
    level
}

/// What runs forms, by their places, and has the clock.
trait Bench {
    /// Whether it gives what the first gives, but for the order of sums.
    fn right(&mut self, form: usize) -> bool;

    fn time(&mut self, form: usize) -> Duration;
}

/// The place of the form that is taken, of which the first is the simplest and always right.
fn fastest(bench: &mut impl Bench, forms: usize) -> usize {
    let right: Vec<usize> = (0..forms).filter(|form| *form == 0 || bench.right(*form)).collect();
    let mut took = vec![Duration::MAX; forms];
    let mut spent = Duration::ZERO;
    for round in 0..ROUNDS {
        if right.len() == 1 || round >= LEAST && spent > BUDGET {
            break;
        }
        for form in &right {
            let one = bench.time(*form);
            spent += one;
            took[*form] = took[*form].min(one);
        }
    }
    let faster = |a: usize, b: usize| took[a].as_secs_f64() * MARGIN <= took[b].as_secs_f64();
    right.into_iter().reduce(|taken, form| if faster(form, taken) { form } else { taken }).unwrap_or(0)
}

/// This processor.
struct Processor {
    forms: Vec<&'static Loops>,
    odd: Operands,
    timed: Operands,
    expected: Vec<f32>,
}

impl Processor {
    fn new(levels: &[Level]) -> Processor {
        let forms: Vec<&'static Loops> =
            levels.iter().map(|one| &*Box::leak(Box::new(Loops::of(*one)))).collect();
        let (mut odd, timed) = (Operands::new(ODD), Operands::new(TIMED));
        odd.multiply(forms[0]);
        let expected = odd.c.clone();
        Processor { forms, odd, timed, expected }
    }
}

impl Bench for Processor {
    fn right(&mut self, form: usize) -> bool {
        self.odd.multiply(self.forms[form]);
        // Each is within k roundings of f32 (2⁻²⁴) of the sum of the terms' magnitudes, which average 0.64. A sum of k such
        // terms is some √k, which is more than a hundred times as much.
        let bound = 2.0 * (ODD[2] as f32) * 2f32.powi(-24) * ODD[2] as f32;
        self.odd.c.iter().zip(&self.expected).all(|(got, expected)| (got - expected).abs() <= bound)
    }

    fn time(&mut self, form: usize) -> Duration {
        let start = Instant::now();
        self.timed.multiply(self.forms[form]);
        start.elapsed()
    }
}

/// A product's factors, normally distributed, and C.
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

    /// C = A·Bᵀ, by this thread.
    fn multiply(&mut self, loops: &'static Loops) {
        let product =
            Product::<bf16>::by_rows(self.sizes, self.a.as_ptr(), self.b.as_ptr(), self.c.as_mut_ptr());
        let alone = Threads::new(1).expect("it starts none");
        // SAFETY: the operands reach as far as the sizes say; the level of the loops is at most the process's.
        alone.install(|| unsafe { product.run_rounded(loops, 1) });
    }
}
