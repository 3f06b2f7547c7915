//! AMX: products of tiles of bf16, in eight registers of 16 rows × 64 bytes.
//!
//! The processor must list the feature, the system must save the registers (bits of XCR0), and on Linux it must permit
//! this process to use them, since they add 8 KiB to each thread's saved state. On Windows a process would have to ask
//! by a function that Windows 10 lacks; on Windows and elsewhere AMX counts as missing.
//!
//! Rust has no stable intrinsics for these instructions yet, so they are inline assembly. No function is compiled with
//! the feature, so the compiler never uses the registers, and they keep their content between two assembly blocks.

#[cfg(all(any(test, feature = "emulated-amx"), target_os = "linux"))]
mod decode;
#[cfg(all(any(test, feature = "emulated-amx"), target_os = "linux"))]
pub mod emulated;
pub mod sums;
#[cfg(all(test, target_os = "linux"))]
mod tests;

use std::arch::asm;

/// Rows per register.
pub const ROWS: usize = 16;
/// Bytes per row.
pub const BYTES: usize = 64;
const REGISTERS: usize = 8;

/// The tile configuration: the memory operand of `ldtilecfg`.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

impl Configuration {
    /// Each register has its full size.
    pub const WHOLE: Configuration = {
        let mut whole =
            Configuration { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        let mut i = 0;
        while i < REGISTERS {
            whole.bytes[i] = BYTES as u16;
            whole.rows[i] = ROWS as u8;
            i += 1;
        }
        whole
    };

    /// Loads the configuration for this thread and zeroes the registers.
    ///
    /// # Safety
    /// The process may use AMX, and the configuration is valid.
    #[inline(always)]
    pub unsafe fn load(&self) {
        // SAFETY: guaranteed by the caller; it reads the 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) self, options(nostack, preserves_flags, readonly)) };
    }
}

/// A thread with `Configuration::WHOLE`, until this is dropped.
pub struct Configured(());

impl Configured {
    /// Configures the current thread.
    ///
    /// # Safety
    /// The process may use the instructions.
    #[inline(always)]
    pub unsafe fn new() -> Configured {
        // SAFETY: guaranteed by the caller; the configuration has the sizes of the palette.
        unsafe { Configuration::WHOLE.load() };
        Configured(())
    }
}

impl Drop for Configured {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: `new` required AMX.
        unsafe { release() };
    }
}

/// Releases the registers, so that context switches do not save them until a configuration is loaded again.
///
/// # Safety
/// The process may use the instructions.
#[inline(always)]
pub unsafe fn release() {
    // SAFETY: guaranteed by the caller.
    unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
}

/// Whether this process may use AMX, on a processor with AVX-512.
#[cfg(target_os = "linux")]
pub fn is_available() -> bool {
    static AVAILABLE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    // SAFETY: a processor with AVX-512 has xgetbv, and the system enables it.
    *AVAILABLE.get_or_init(|| has_tiles() && unsafe { os_saves_tiles() } && request_permission())
}

#[cfg(not(target_os = "linux"))]
pub fn is_available() -> bool {
    false
}

/// Whether the processor has tiles and products of bf16, with registers of the size above.
#[cfg(target_os = "linux")]
fn has_tiles() -> bool {
    use std::arch::x86_64::__cpuid_count;
    /// The leaf that describes the registers.
    const TILES: u32 = 0x1d;
    // Whether this call is unsafe differs between supported versions of Rust.
    #[allow(unused_unsafe)]
    // SAFETY: every x86-64 processor has cpuid, and only leaves up to the highest are read.
    let leaf = |leaf, sub| unsafe { __cpuid_count(leaf, sub) };
    if leaf(0, 0).eax < TILES {
        return false;
    }
    let (features, tiles) = (leaf(7, 0).edx, leaf(TILES, 1));
    let has = |bit: u32| features >> bit & 1 == 1;
    let [bf16, tile] = [22, 24].map(has);
    bf16 && tile
        && tiles.ebx & 0xffff == BYTES as u32
        && tiles.ebx >> 16 == REGISTERS as u32
        && tiles.ecx & 0xffff == ROWS as u32
}

/// Whether the system saves and restores the configuration and the registers.
#[cfg(target_os = "linux")]
#[target_feature(enable = "xsave")]
fn os_saves_tiles() -> bool {
    const STATES: u64 = 1 << 17 | 1 << 18;
    // SAFETY: register 0 always exists.
    (unsafe { std::arch::x86_64::_xgetbv(0) }) & STATES == STATES
}

/// Asks Linux for permission to use the registers, for all current and future threads. Returns whether it was granted.
#[cfg(target_os = "linux")]
fn request_permission() -> bool {
    const ARCH_PRCTL: isize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XFEATURE_XTILEDATA: usize = 18;
    let result: isize;
    // SAFETY: the system call writes no memory of this process; the registers that it clobbers are declared.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}
