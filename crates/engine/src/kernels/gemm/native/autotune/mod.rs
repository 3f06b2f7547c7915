//! The choice of the rounded products' variant: f32, pairs of bf16, or AMX tiles, whichever `lowrank_cpu` measures to be
//! fastest on this processor.
//!
//! The variants sum in different orders, so the choice affects bits. It is made once per process, before the first such
//! product, and stored for later processes, by processor and package version (`tune/store`). If `LOWRANK_ISA` names a
//! level or `LOWRANK_TUNE` is off, nothing is measured and the level's own variant is used. Rounded products of
//! attention use the chosen variant, too.

#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use lowrank_cpu::gemm::measure::{list_candidates, measure_fastest};
use lowrank_cpu::gemm::{KernelTable, current_table};
use lowrank_cpu::simd::{Level, level};

use crate::device::cpu::system;
use crate::tune::{Choices, Owner, Setting, Store};

/// The key in the store.
const CLASS: &str = "gemm rounded to bf16";

/// The kernels of this process's rounded products.
pub fn rounded_table() -> &'static KernelTable {
    static CHOSEN: OnceLock<&'static KernelTable> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let level_is_set = std::env::var("LOWRANK_ISA").is_ok_and(|level| !level.is_empty());
        let is_off = matches!(Setting::from_environment(), Ok(Setting::Off));
        let levels = list_candidates(level());
        if level_is_set || is_off || levels.len() < 2 {
            return current_table();
        }
        let owner = Owner {
            adapter: identify_processor(),
            driver: level().label().into(),
            package: env!("CARGO_PKG_VERSION").into(),
        };
        let chosen = load_or_measure(Store::open(owner).as_ref(), &levels, || measure_fastest(&levels));
        if chosen == level() { current_table() } else { Box::leak(Box::new(KernelTable::of(chosen))) }
    })
}

/// The instruction set of those kernels; attention uses it, too.
pub fn rounded_level() -> Level {
    rounded_table().level
}

/// The processor's name and CPUID signature, since several generations may share a name.
fn identify_processor() -> String {
    let name = system::read_processor_name();
    #[cfg(target_arch = "x86_64")]
    {
        // Whether this call is unsafe differs between supported versions of Rust.
        #[allow(unused_unsafe)]
        // SAFETY: every x86-64 processor has cpuid and this leaf.
        let signature = unsafe { std::arch::x86_64::__cpuid(1) }.eax;
        format!("{name} {signature:x}")
    }
    #[cfg(not(target_arch = "x86_64"))]
    name
}

/// The stored level, if it is one of `levels`; otherwise the fastest, which is then stored.
fn load_or_measure(store: Option<&Store>, levels: &[Level], measure: impl FnOnce() -> Level) -> Level {
    let before = store.and_then(|store| store.read().variants.get(CLASS).cloned());
    if let Some(level) = levels.iter().find(|level| before.as_deref() == Some(level.name())) {
        return *level;
    }
    let level = measure();
    if let Some(store) = store {
        store.add(&Choices::from([(CLASS.into(), level.name().into())]).into());
    }
    level
}
