//! An emulator of AMX for tests on processors without it: a handler of SIGILL executes the refused instruction as
//! Intel's manual defines it, and the thread continues after it.
//!
//! Instructions that a processor with AMX would refuse, and all other instructions, are passed to the previous handler,
//! which usually ends the process. A signal handler must not lock or allocate: it decodes, computes and returns. lock
//! and no memory: it decodes, computes and returns.

use std::arch::asm;
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use super::decode::{Address, Instruction, RowAddresses, decode};
use super::{BYTES, Configuration, REGISTERS, ROWS};

/// Elements per row.
const LANES: usize = BYTES / 4;

/// A register's rows of elements: sums, or pairs of bf16.
type Register = [[u32; LANES]; ROWS];

/// The AMX state of a thread.
struct Tiles {
    /// The rows, and bytes per row, of each register; `None` if it is not in use.
    sizes: [Option<(usize, usize)>; REGISTERS],
    registers: [Register; REGISTERS],
}

thread_local! {
    // Const-initialised and without a destructor, so that an access is only an address.
    static TILES: UnsafeCell<Tiles> = const {
        UnsafeCell::new(Tiles { sizes: [None; REGISTERS], registers: [[[0; LANES]; ROWS]; REGISTERS] })
    };
}

/// The previous action of the signal.
static PREVIOUS_ACTION: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the emulator in this process. It requires AVX-512.
pub fn install() {
    PREVIOUS_ACTION.get_or_init(|| {
        let mut before = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: both actions are initialised; the handler is async-signal-safe.
        unsafe {
            let mut ours: libc::sigaction = std::mem::zeroed();
            ours.sa_sigaction = emulate_instruction as *const () as usize;
            ours.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGILL, &ours, before.as_mut_ptr()), 0);
            before.assume_init()
        }
    });
}

/// Whether this thread's emulated registers are in use; false if the processor has AMX.
pub fn is_in_use() -> bool {
    // SAFETY: the thread is not inside an emulated instruction.
    TILES.with(|tiles| unsafe { (*tiles.get()).sizes.iter().any(Option::is_some) })
}

/// The indices of the general registers in a saved context, by their numbers in encodings.
const GENERAL: [libc::c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

extern "C" fn emulate_instruction(signal: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system passes a valid context; the thread was about to execute the instruction with these operands.
    unsafe {
        let general = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let at = general[libc::REG_RIP as usize];
        let register = |number: usize| general[GENERAL[number] as usize];
        // The longest instruction has 10 bytes. The next page is read only if the instruction extends into it.
        let bytes = |count: usize| std::slice::from_raw_parts(at as *const u8, count);
        let decoded = decode(bytes((4096 - (at as usize & 4095)).min(10))).or_else(|| decode(bytes(10)));
        let length = decoded.and_then(|(instruction, length)| {
            TILES.with(|tiles| (*tiles.get()).run(instruction, register))?;
            Some(length)
        });
        match (length, PREVIOUS_ACTION.get()) {
            (Some(length), _) => general[libc::REG_RIP as usize] = at + length as libc::greg_t,
            // Passes the signal to the previous handler; the instruction restarts.
            (None, Some(before)) => {
                libc::sigaction(signal, before, std::ptr::null_mut());
            }
            (None, None) => libc::abort(),
        }
    }
}

/// The address of a memory operand.
fn resolve_address(place: Address, register: impl Fn(usize) -> i64) -> *mut u8 {
    register(place.base).wrapping_add(place.displacement) as *mut u8
}

impl Tiles {
    /// Executes an instruction. Returns `None` if the processor would refuse it.
    ///
    /// # Safety
    /// Its memory operands are valid.
    unsafe fn run(&mut self, instruction: Instruction, register: impl Fn(usize) -> i64) -> Option<()> {
        let row = |rows: RowAddresses, i: usize| {
            let step = rows.index.map_or(0, &register) << rows.scale;
            resolve_address(rows.first, &register).wrapping_offset((i as i64).wrapping_mul(step) as isize)
        };
        match instruction {
            Instruction::Release => {
                self.sizes = [None; REGISTERS];
                self.registers = [[[0; LANES]; ROWS]; REGISTERS];
            }
            Instruction::Configure(place) => {
                // SAFETY: guaranteed by the caller.
                let configuration =
                    unsafe { resolve_address(place, &register).cast::<Configuration>().read() };
                self.sizes = read_sizes(&configuration)?;
                self.registers = [[[0; LANES]; ROWS]; REGISTERS];
            }
            Instruction::Zero(tile) => {
                self.sizes[tile]?;
                self.registers[tile] = [[0; LANES]; ROWS];
            }
            Instruction::Load(tile, from) => {
                let (rows, bytes) = self.sizes[tile]?;
                self.registers[tile] = [[0; LANES]; ROWS];
                for (i, to) in self.registers[tile].iter_mut().enumerate().take(rows) {
                    // SAFETY: guaranteed by the caller; a row has room for the bytes.
                    unsafe { std::ptr::copy_nonoverlapping(row(from, i), to.as_mut_ptr().cast(), bytes) };
                }
            }
            Instruction::Store(tile, to) => {
                let (rows, bytes) = self.sizes[tile]?;
                for (i, from) in self.registers[tile].iter().enumerate().take(rows) {
                    // SAFETY: guaranteed by the caller.
                    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr().cast(), row(to, i), bytes) };
                }
            }
            Instruction::Multiply { to, left, right } => {
                let [sums, a, b] = [to, left, right].map(|tile| self.sizes[tile]);
                let ((m, row), (rows, terms), (k, columns)) = (sums?, a?, b?);
                let distinct = to != left && left != right && to != right;
                let whole = [row, terms, columns].iter().all(|bytes| bytes % 4 == 0);
                if !distinct || !whole || m != rows || k != terms / 4 || row != columns {
                    return None;
                }
                let [a, b] = [left, right].map(|tile| self.registers[tile]);
                let lanes = row / 4;
                for (sums, a) in self.registers[to].iter_mut().zip(&a).take(m) {
                    // SAFETY: `install` required AVX-512.
                    let added = unsafe { multiply_row(sums, &a[..k], &b[..k]) };
                    sums[..lanes].copy_from_slice(&added[..lanes]);
                    sums[lanes..].fill(0);
                }
                self.registers[to][m..].fill([0; LANES]);
            }
        }
        Some(())
    }
}

/// The rows, and bytes per row, of the registers; `None` for an invalid configuration. Restarting in the middle of a
/// load, which only an operating system does, is not supported.
fn read_sizes(c: &Configuration) -> Option<[Option<(usize, usize)>; REGISTERS]> {
    let mut sizes = [None; REGISTERS];
    if c.palette == 0 {
        return Some(sizes);
    }
    let beyond = c.bytes[REGISTERS..].iter().any(|n| *n != 0) || c.rows[REGISTERS..].iter().any(|n| *n != 0);
    if c.palette != 1 || c.start_row != 0 || c.reserved != [0; 14] || beyond {
        return None;
    }
    for (size, (rows, bytes)) in sizes.iter_mut().zip(c.rows.iter().zip(&c.bytes)) {
        let (rows, bytes) = (*rows as usize, *bytes as usize);
        if rows > ROWS || bytes > BYTES || (rows == 0) != (bytes == 0) {
            return None;
        }
        *size = (rows != 0).then_some((rows, bytes));
    }
    Some(sizes)
}

/// A row of sums plus a product: the products of all pairs' first terms are summed in ascending order, likewise of the
/// second terms; then the two sums are added, and the result is added to the row. Each step rounds to nearest even and
/// flushes subnormals.
///
/// # Safety
/// The processor has AVX-512.
#[target_feature(enable = "avx512f")]
unsafe fn multiply_row(sums: &[u32; LANES], a: &[u32], b: &[[u32; LANES]]) -> [u32; LANES] {
    /// Rounds to nearest even, masks exceptions, and treats subnormal operands and results as zeros.
    const CONTROL: u32 = 0x1f80 | 1 << 15 | 1 << 6;
    let mut added = *sums;
    let (mut control, ours) = (0u32, CONTROL);
    // SAFETY: it reads `a` and as many rows of `b`, writes a row, and restores the control word.
    unsafe {
        asm!(
            "stmxcsr [{control}]",
            "ldmxcsr [{ours}]",
            "vpxord {even}, {even}, {even}",
            "vpxord {odd}, {odd}, {odd}",
            "2:",
            "vpbroadcastd {a}, dword ptr [{left}]",
            "vmovdqu32 {b}, zmmword ptr [{right}]",
            "vpslld {x}, {a}, 16",
            "vpslld {y}, {b}, 16",
            "vfmadd231ps {even}, {x}, {y}",
            "vpsrld {a}, {a}, 16",
            "vpslld {a}, {a}, 16",
            "vpsrld {b}, {b}, 16",
            "vpslld {b}, {b}, 16",
            "vfmadd231ps {odd}, {a}, {b}",
            "add {left}, 4",
            "add {right}, 64",
            "dec {count}",
            "jnz 2b",
            "vaddps {even}, {even}, {odd}",
            "vaddps {even}, {even}, zmmword ptr [{added}]",
            "vmovups zmmword ptr [{added}], {even}",
            "ldmxcsr [{control}]",
            control = in(reg) &mut control,
            ours = in(reg) &ours,
            added = in(reg) &mut added,
            left = inout(reg) a.as_ptr() => _,
            right = inout(reg) b.as_ptr() => _,
            count = inout(reg) a.len() => _,
            even = out(zmm_reg) _,
            odd = out(zmm_reg) _,
            a = out(zmm_reg) _,
            b = out(zmm_reg) _,
            x = out(zmm_reg) _,
            y = out(zmm_reg) _,
            options(nostack),
        );
    }
    added
}
