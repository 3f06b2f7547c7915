//! The instruction set of native kernels: detected once, or given by `LOWRANK_ISA`.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

/// Instruction sets that kernels are compiled for; each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The instructions that every processor of the target has: SSE2, NEON.
    Baseline,
    /// AVX2 with fused multiply-adds and conversions of halves.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 with F, BW, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// Products of pairs of bf16, and of bytes.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    /// Products of tiles of bf16.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// Products of small matrices of bf16.
    #[cfg(target_arch = "aarch64")]
    NeonBf16,
}

impl Level {
    /// The levels of this target, the best last.
    pub const ALL: &[Level] = &[
        Level::Baseline,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Bf16,
        #[cfg(target_arch = "x86_64")]
        Level::Amx,
        #[cfg(target_arch = "aarch64")]
        Level::NeonBf16,
    ];

    /// The name in `LOWRANK_ISA`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Baseline if cfg!(target_arch = "aarch64") => "neon",
            Level::Baseline => "baseline",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Bf16 => "avx512bf16",
            #[cfg(target_arch = "x86_64")]
            Level::Amx => "amx",
            #[cfg(target_arch = "aarch64")]
            Level::NeonBf16 => "neonbf16",
        }
    }

    /// The same level without products of bf16 and of bytes.
    pub fn exact(self) -> Level {
        match self {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Bf16 | Level::Amx => Level::Avx512,
            #[cfg(target_arch = "aarch64")]
            Level::NeonBf16 => Level::Baseline,
            other => other,
        }
    }

    /// The name that a device reports.
    pub fn label(self) -> &'static str {
        match self {
            Level::Baseline if cfg!(target_arch = "x86_64") => "SSE2",
            Level::Baseline if cfg!(target_arch = "aarch64") => "NEON",
            Level::Baseline => "scalar",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Avx512Bf16 => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            Level::Amx => "AVX-512, AMX",
            #[cfg(target_arch = "aarch64")]
            Level::NeonBf16 => "NEON",
        }
    }
}

/// The best level of this processor.
fn detect() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if !(has!("avx2") && has!("fma") && has!("f16c")) {
            return Level::Baseline;
        }
        if !(has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl")) {
            return Level::Avx2;
        }
        match has!("avx512bf16") && has!("avx512vnni") {
            false => Level::Avx512,
            true if super::amx::is_available() => Level::Amx,
            true => Level::Avx512Bf16,
        }
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("bf16") {
        return Level::NeonBf16;
    }
    #[cfg(not(target_arch = "x86_64"))]
    Level::Baseline
}

/// The best level that `LOWRANK_ISA` may name; in tests it includes AMX, by the emulator (the feature
/// `emulated-amx`).
fn detect_best() -> Level {
    let best = detect();
    #[cfg(all(any(test, feature = "emulated-amx"), target_os = "linux", target_arch = "x86_64"))]
    if best == Level::Avx512Bf16 {
        super::amx::emulated::install();
        return Level::Amx;
    }
    best
}

/// The levels that can run here, up to the level in `LOWRANK_ISA`: tests run each of them.
pub fn usable_levels() -> impl Iterator<Item = Level> {
    let best = if std::env::var("LOWRANK_ISA").is_ok_and(|requested| !requested.is_empty()) {
        level()
    } else {
        detect_best()
    };
    Level::ALL.iter().copied().filter(move |one| *one <= best)
}

/// The level of this process: the processor's best, or a lower one given by `LOWRANK_ISA`.
///
/// # Errors
/// If `LOWRANK_ISA` names a level that the processor lacks.
pub fn choose_level() -> Result<Level, UnknownLevel> {
    let requested = std::env::var("LOWRANK_ISA").unwrap_or_default();
    if requested.is_empty() {
        return Ok(detect());
    }
    let best = detect_best();
    let usable = || Level::ALL.iter().filter(|level| **level <= best);
    match usable().find(|level| level.name() == requested) {
        Some(level) => Ok(*level),
        None => Err(UnknownLevel { available: usable().map(|level| level.name()).collect(), requested }),
    }
}

/// The error of a `LOWRANK_ISA` that names none of the processor's levels.
#[derive(Clone, Debug)]
pub struct UnknownLevel {
    requested: String,
    available: Vec<&'static str>,
}

impl fmt::Display for UnknownLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UnknownLevel { requested, available } = self;
        write!(f, "LOWRANK_ISA is {requested:?}; this processor has {}", available.join(", "))
    }
}

impl std::error::Error for UnknownLevel {}

/// The level of this process, computed on first use; the best level if `choose_level` fails, which opening the device
/// reports.
#[inline]
pub fn level() -> Level {
    // One more than the level's index; 0 until it is computed.
    static LEVEL: AtomicU8 = AtomicU8::new(0);
    match LEVEL.load(Ordering::Relaxed) {
        0 => {
            let level = choose_level().unwrap_or_else(|_| detect());
            LEVEL.store(level as u8 + 1, Ordering::Relaxed);
            level
        }
        n => Level::ALL[n as usize - 1],
    }
}
