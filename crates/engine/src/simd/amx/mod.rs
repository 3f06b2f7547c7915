//! AMX: products of tiles of bf16, which lie in eight registers of 16 rows × 64 bytes.
//!
//! Beside the processor, which lists them, the system has to keep the registers (bits of XCR0), and on Linux to let
//! this process have them, since each thread's saved state grows by 8 KiB once it has used them. On Windows a process
//! would have to ask, too, by a function that Windows 10 lacks; there and elsewhere they are taken to be missing.
//!
//! The instructions have no stable names in Rust's library yet, and stand here and in products by their mnemonics. No
//! function is compiled with the feature, so that the compiler has no use for the registers: between two blocks of
//! assembly they hold what the first has left.

#[cfg(all(test, target_os = "linux"))]
mod decode;
#[cfg(all(test, target_os = "linux"))]
pub mod emulated;
pub mod sums;
#[cfg(all(test, target_os = "linux"))]
mod tests;

use std::arch::asm;

/// Rows of a register.
pub const ROWS: usize = 16;
/// Bytes of a row.
pub const BYTES: usize = 64;
const REGISTERS: usize = 8;

/// What each register holds: the memory of `ldtilecfg`.
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
    /// Each register holds all that it can.
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

    /// Takes effect for this thread; the registers hold zeros.
    ///
    /// # Safety
    /// The process may use the instructions, and the configuration is one that the processor takes.
    #[inline(always)]
    pub unsafe fn load(&self) {
        // SAFETY: the caller's; it reads the 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) self, options(nostack, preserves_flags, readonly)) };
    }
}

/// A thread whose registers are whole, as long as this is kept.
pub struct Configured(());

impl Configured {
    /// # Safety
    /// The process may use the instructions.
    #[inline(always)]
    pub unsafe fn new() -> Configured {
        // SAFETY: the caller's; the configuration is of the palette's own sizes.
        unsafe { Configuration::WHOLE.load() };
        Configured(())
    }
}

impl Drop for Configured {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: who made it could use the instructions.
        unsafe { release() };
    }
}

/// Gives the registers up: until a configuration is loaded again, a switch to another thread saves none of them.
///
/// # Safety
/// The process may use the instructions.
#[inline(always)]
pub unsafe fn release() {
    // SAFETY: the caller's.
    unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
}

/// Whether this process may use them, on a processor with AVX-512.
#[cfg(target_os = "linux")]
pub fn available() -> bool {
    static AVAILABLE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    // SAFETY: a processor with AVX-512 has xgetbv, and the system uses it.
    *AVAILABLE.get_or_init(|| listed() && unsafe { kept() } && permitted())
}

#[cfg(not(target_os = "linux"))]
pub fn available() -> bool {
    false
}

/// Whether the processor has tiles and products of bf16, in registers of the size above.
#[cfg(target_os = "linux")]
fn listed() -> bool {
    use std::arch::x86_64::__cpuid_count;
    /// The leaf that describes the registers.
    const TILES: u32 = 0x1d;
    // Its safety differs between the versions of Rust that this compiles with.
    #[allow(unused_unsafe)]
    // SAFETY: every processor of 64 bits has the instruction, and a leaf above the last is asked for by none.
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
fn kept() -> bool {
    const STATES: u64 = 1 << 17 | 1 << 18;
    // SAFETY: register 0 is always there.
    (unsafe { std::arch::x86_64::_xgetbv(0) }) & STATES == STATES
}

/// Whether Linux lets this process have the registers; threads that are there and those to come have its leave.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: isize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XFEATURE_XTILEDATA: usize = 18;
    let result: isize;
    // SAFETY: a call of the system that writes no memory of this process; what it leaves undefined is declared.
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
