//! Tests of AMX instructions, by the emulator if the processor has none.

use std::arch::asm;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use half::bf16;

use super::decode::{Address, Instruction, RowAddresses, decode};
use super::{Configuration, REGISTERS, release};
use crate::simd::Level;
use crate::simd::level::usable_levels;

/// Rows of two factors and of sums: m × n += m × k pairs · k pairs × n.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    m: usize,
    n: usize,
    k: usize,
}

/// Leading dimension of the three operands, in elements.
const ROW: usize = 19;
/// The value of elements that must not be written.
const UNTOUCHED: f32 = 1234.5;

impl Sizes {
    fn to_configuration(self) -> Configuration {
        let Sizes { m, n, k } = self;
        let mut c = Configuration { palette: 1, bytes: [0; 16], rows: [0; 16], ..Configuration::WHOLE };
        for (register, (rows, elements)) in [(0, (m, n)), (3, (m, k)), (7, (k, n))] {
            (c.rows[register], c.bytes[register]) = (rows as u8, 4 * elements as u16);
        }
        c
    }
}

/// The sums after a product.
fn multiply_pairs(sizes: Sizes, a: &[u32], b: &[u32], sums: &[f32]) -> Vec<f32> {
    let mut sums = sums.to_vec();
    assert!([a.len(), b.len(), sums.len()].iter().all(|len| *len >= 16 * ROW));
    // SAFETY: the operands hold 16 rows.
    unsafe {
        sizes.to_configuration().load();
        asm!(
            "tileloadd tmm0, [{sums} + {row}]",
            "tileloadd tmm3, [{a} + {row}]",
            "tileloaddt1 tmm7, [{b} + 2*{half}]",
            "tdpbf16ps tmm0, tmm3, tmm7",
            "tilestored [{before} + {row} + 400], tmm0",
            a = in(reg) a.as_ptr(),
            b = in(reg) b.as_ptr(),
            sums = in(reg) sums.as_mut_ptr(),
            before = in(reg) sums.as_mut_ptr().wrapping_sub(100),
            row = in(reg) 4 * ROW,
            half = in(reg) 2 * ROW,
            options(nostack),
        );
        release();
    }
    sums
}

/// Flushes a subnormal number to 0, as the instruction does for operands and results.
fn flush_subnormal(v: f32) -> f32 {
    if v.is_subnormal() { 0f32.copysign(v) } else { v }
}

/// The definition of Intel's manual, one element at a time.
fn compute_reference(Sizes { m, n, k }: Sizes, a: &[u32], b: &[u32], sums: &[f32]) -> Vec<f32> {
    let mut out = sums.to_vec();
    for i in 0..m {
        for j in 0..n {
            let mut parity = [0f32; 2];
            for t in 0..k {
                let pair =
                    |v: u32| [v << 16, v & 0xffff_0000].map(|bits| flush_subnormal(f32::from_bits(bits)));
                let (a, b) = (pair(a[i * ROW + t]), pair(b[t * ROW + j]));
                for (sum, (a, b)) in parity.iter_mut().zip(a.into_iter().zip(b)) {
                    *sum = flush_subnormal(a.mul_add(b, *sum));
                }
            }
            let both = flush_subnormal(parity[0] + parity[1]);
            let sum = &mut out[i * ROW + j];
            *sum = flush_subnormal(flush_subnormal(*sum) + both);
        }
    }
    out
}

struct Generator(u64);

impl Generator {
    fn draw_word(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as u32
    }

    /// A number of magnitude 2^least or more, over `powers` powers of two.
    fn draw_number(&mut self, least: i32, powers: u32) -> f32 {
        let v = 1.0 + self.draw_word() as f32 / (1u32 << 31) as f32;
        let v = v as f64 * 2f64.powi(least + (self.draw_word() % powers) as i32);
        if self.draw_word() & 1 == 1 { -v as f32 } else { v as f32 }
    }

    fn draw_pairs(&mut self, least: i32, powers: u32) -> Vec<u32> {
        let mut half = || bf16::from_f32(self.draw_number(least, powers)).to_bits() as u32;
        (0..16 * ROW).map(|_| half() | half() << 16).collect()
    }
}

fn to_bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

const SIZES: [Sizes; 6] = [
    Sizes { m: 16, n: 16, k: 16 },
    Sizes { m: 1, n: 1, k: 1 },
    Sizes { m: 5, n: 16, k: 16 },
    Sizes { m: 16, n: 7, k: 3 },
    Sizes { m: 9, n: 11, k: 13 },
    Sizes { m: 2, n: 15, k: 16 },
];

fn has_amx() -> bool {
    usable_levels().any(|level| level == Level::Amx)
}

/// Usual magnitudes; and subnormal factors, products and sums.
#[test]
fn a_product_has_the_bits_that_the_manual_defines() {
    if !has_amx() {
        return;
    }
    let mut generator = Generator(7);
    for sizes in SIZES {
        for (least, powers) in [(-3, 6), (-70, 12), (-132, 12), (-133, 140)] {
            let (a, b) = (generator.draw_pairs(least, powers), generator.draw_pairs(least, powers));
            let mut sums: Vec<f32> =
                (0..16 * ROW).map(|_| generator.draw_number(2 * least.max(-70), 12)).collect();
            let Sizes { m, n, .. } = sizes;
            for (at, sum) in sums.iter_mut().enumerate() {
                if at / ROW >= m || at % ROW >= n {
                    *sum = UNTOUCHED;
                }
            }
            let got = multiply_pairs(sizes, &a, &b, &sums);
            assert_eq!(to_bits(&got), to_bits(&compute_reference(sizes, &a, &b, &sums)), "{sizes:?} {least}");
        }
    }
}

/// Sums that cancel to a subnormal number, of either sign, and a subnormal product.
#[test]
fn subnormal_values_are_flushed_to_zero() {
    if !has_amx() {
        return;
    }
    let sizes = Sizes { m: 1, n: 1, k: 1 };
    let (small, pair) = (f32::MIN_POSITIVE, |low: f32, high: f32| {
        vec![(low.to_bits() >> 16) | (high.to_bits() & 0xffff_0000); 16 * ROW]
    });
    // 1.25 and 0.75 times the smallest normal number, and twice it; the last multiplied by a subnormal number.
    let (normal, subnormal, double) = (1.25 * 2f32.powi(-63), 0.75 * 2f32.powi(-63), 2f32.powi(-62));
    let right = pair(2f32.powi(-63), 2f32.powi(-63));
    let cases = [
        (pair(normal, 0.0), -1.5 * small, -0.0),
        (pair(-normal, 0.0), 1.5 * small, 0.0),
        (pair(double, -normal), 0.0, 0.0),
        (pair(subnormal, 0.0), 2.0 * small, 2.0 * small),
        (pair(0.0, normal), 0.5 * small, 1.25 * small),
        (pair(double, double), 0.0, 4.0 * small),
    ];
    for (case, (left, sum, expected)) in cases.into_iter().enumerate() {
        let got = multiply_pairs(sizes, &left, &right, &vec![sum; 16 * ROW])[0];
        assert_eq!(got.to_bits(), f32::to_bits(expected), "{case}: {got:e}");
    }
}

#[test]
fn non_finite_values_stay_in_their_row_and_column() {
    if !has_amx() {
        return;
    }
    let sizes = SIZES[0];
    let (mut a, mut b) = (vec![0x3f80_3f80; 16 * ROW], vec![0x3f80_3f80; 16 * ROW]);
    a[3 * ROW + 2] = 0x7f80_3f80;
    b[2 * ROW + 5] = 0x3f80_7fc0;
    let got = multiply_pairs(sizes, &a, &b, &vec![0.0; 16 * ROW]);
    for (at, v) in got.iter().enumerate().filter(|(at, _)| at % ROW < 16) {
        match (at / ROW, at % ROW) {
            (_, 5) => assert!(v.is_nan()),
            (3, _) => assert_eq!(*v, f32::INFINITY),
            _ => assert_eq!(*v, 32.0),
        }
    }
}

/// Registers belong to a thread, are zero after configuration, and rows past a load are zero.
#[test]
fn each_thread_has_separate_registers() {
    if !has_amx() {
        return;
    }
    let store = |sums: &mut [f32; 256]| {
        // SAFETY: 16 rows of 64 bytes.
        unsafe {
            asm!("tilestored [{} + {}], tmm2", in(reg) sums.as_mut_ptr(), in(reg) 64usize, options(nostack))
        };
    };
    let ones = [1f32; 256];
    let mut sums = [2f32; 256];
    // SAFETY: registers have their full size, and so do the operands.
    unsafe {
        Configuration::WHOLE.load();
        asm!("tileloadd tmm2, [{} + {}]", in(reg) ones.as_ptr(), in(reg) 64usize, options(nostack));
        std::thread::spawn(move || {
            Configuration::WHOLE.load();
            let mut sums = [2f32; 256];
            store(&mut sums);
            assert_eq!(sums, [0.0; 256]);
            release();
        })
        .join()
        .unwrap();
        store(&mut sums);
        assert_eq!(sums, ones);
        asm!("tilezero tmm2", options(nostack));
        store(&mut sums);
        assert_eq!(sums, [0.0; 256]);
        // Fewer rows: nothing is read or written past them.
        asm!("tileloadd tmm2, [{} + {}]", in(reg) ones.as_ptr(), in(reg) 64usize, options(nostack));
        Configuration::WHOLE.load();
        store(&mut sums);
        assert_eq!(sums, [0.0; 256]);
        release();
    }
}

/// An instruction may begin on one page and end on the next.
#[test]
fn an_instruction_may_span_two_pages() {
    if !has_amx() {
        return;
    }
    const PAGE: usize = 4096;
    // tilerelease; ret
    let code = [0xc4, 0xe2, 0x78, 0x49, 0xc0, 0xc3];
    for before in 1..=code.len() {
        // SAFETY: the pages belong to this test and hold a function that returns.
        unsafe {
            let (write, run) = (libc::PROT_READ | libc::PROT_WRITE, libc::PROT_READ | libc::PROT_EXEC);
            let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let pages = libc::mmap(std::ptr::null_mut(), 2 * PAGE, write, private, -1, 0);
            assert_ne!(pages, libc::MAP_FAILED);
            let at = pages.cast::<u8>().add(PAGE - before);
            at.copy_from_nonoverlapping(code.as_ptr(), code.len());
            assert_eq!(libc::mprotect(pages, 2 * PAGE, run), 0);
            Configuration::WHOLE.load();
            std::mem::transmute::<*mut u8, extern "C" fn()>(at)();
            assert_eq!(libc::munmap(pages, 2 * PAGE), 0);
        }
        assert!(!super::emulated::is_in_use());
    }
}

/// An instruction that the processor rejects ends the process.
#[test]
fn invalid_configurations_raise_a_signal() {
    const CASE: &str = "LOWRANK_AMX_CASE";
    if !has_amx() {
        return;
    }
    let wrong: [(&str, fn()); 7] = [
        ("no configuration", || multiply(None)),
        ("too many rows", || multiply_changed(|c| c.rows[5] = 17)),
        ("too many bytes", || multiply_changed(|c| c.bytes[5] = 68)),
        ("empty rows", || multiply_changed(|c| c.bytes[5] = 0)),
        ("another palette", || multiply_changed(|c| c.palette = 2)),
        // 8 pairs of A by 16 of B.
        ("mismatched terms", || multiply_changed(|c| c.bytes[1] = 32)),
        ("a reserved byte", || multiply_changed(|c| c.reserved[3] = 1)),
    ];
    if let Ok(case) = std::env::var(CASE) {
        match case.parse::<usize>().ok().and_then(|i| wrong.get(i)) {
            Some((_, run)) => run(),
            None => multiply(Some(Configuration::WHOLE)),
        }
        return;
    }
    let run = |case: usize| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "simd::amx::tests::invalid_configurations_raise_a_signal"])
            .env(CASE, case.to_string())
            .output()
            .unwrap()
            .status
    };
    assert!(run(wrong.len()).success());
    for (case, (what, _)) in wrong.iter().enumerate() {
        let signal = run(case).signal();
        assert!(matches!(signal, Some(libc::SIGILL | libc::SIGSEGV)), "{what}: {signal:?}");
    }
}

fn multiply_changed(change: impl Fn(&mut Configuration)) {
    let mut configuration = Configuration::WHOLE;
    change(&mut configuration);
    multiply(Some(configuration));
}

fn multiply(configuration: Option<Configuration>) {
    // SAFETY: it accesses registers only; a refused instruction does nothing.
    unsafe {
        if let Some(configuration) = configuration {
            configuration.load();
        }
        asm!("tdpbf16ps tmm0, tmm1, tmm2", options(nostack));
        release();
    }
}

#[test]
fn instructions_decode_from_the_encodings_of_the_assembler() {
    let at = |base, displacement| Address { base, displacement };
    let rows = |first, index, scale| RowAddresses { first, index, scale };
    let cases: [(&[u8], Instruction); 13] = [
        // ldtilecfg [rdx]; [r13 - 64]; [rsp + 256]
        (&[0xc4, 0xe2, 0x78, 0x49, 0x02], Instruction::Configure(at(2, 0))),
        (&[0xc4, 0xc2, 0x78, 0x49, 0x45, 0xc0], Instruction::Configure(at(13, -64))),
        (&[0xc4, 0xe2, 0x78, 0x49, 0x84, 0x24, 0, 1, 0, 0], Instruction::Configure(at(4, 256))),
        // tilerelease; tilezero tmm0; tmm7
        (&[0xc4, 0xe2, 0x78, 0x49, 0xc0], Instruction::Release),
        (&[0xc4, 0xe2, 0x7b, 0x49, 0xc0], Instruction::Zero(0)),
        (&[0xc4, 0xe2, 0x7b, 0x49, 0xf8], Instruction::Zero(7)),
        // tileloadd tmm4, [rdi + rax]; tmm6, [r8 + 2*r9 + 64]; tileloaddt1 tmm1, [rsi + 8*rdx]
        (&[0xc4, 0xe2, 0x7b, 0x4b, 0x24, 0x07], Instruction::Load(4, rows(at(7, 0), Some(0), 0))),
        (&[0xc4, 0x82, 0x7b, 0x4b, 0x74, 0x48, 0x40], Instruction::Load(6, rows(at(8, 64), Some(9), 1))),
        (&[0xc4, 0xe2, 0x79, 0x4b, 0x0c, 0xd6], Instruction::Load(1, rows(at(6, 0), Some(2), 3))),
        // tileloadd tmm0, [rdi]
        (&[0xc4, 0xe2, 0x7b, 0x4b, 0x04, 0x27], Instruction::Load(0, rows(at(7, 0), None, 0))),
        // tilestored [rcx + rax], tmm0
        (&[0xc4, 0xe2, 0x7a, 0x4b, 0x04, 0x01], Instruction::Store(0, rows(at(1, 0), Some(0), 0))),
        // tdpbf16ps tmm0, tmm4, tmm6; tmm7, tmm1, tmm0
        (&[0xc4, 0xe2, 0x4a, 0x5c, 0xc4], Instruction::Multiply { to: 0, left: 4, right: 6 }),
        (&[0xc4, 0xe2, 0x7a, 0x5c, 0xf9], Instruction::Multiply { to: 7, left: 1, right: 0 }),
    ];
    for (bytes, instruction) in cases {
        let longer = [bytes, &[0x90, 0x90]].concat();
        assert_eq!(decode(&longer), Some((instruction, bytes.len())));
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), None, "{bytes:x?}");
        }
    }
    // ud2; sttilecfg [rdx]; tdpbssd tmm0, tmm4, tmm6; a wide operand; 256 bits; another map; relative to the next.
    let others: [&[u8]; 7] = [
        &[0x0f, 0x0b, 0, 0, 0, 0, 0],
        &[0xc4, 0xe2, 0x79, 0x49, 0x02],
        &[0xc4, 0xe2, 0x4b, 0x5e, 0xc4],
        &[0xc4, 0xe2, 0xfb, 0x49, 0xc0],
        &[0xc4, 0xe2, 0x7f, 0x49, 0xc0],
        &[0xc4, 0xe1, 0x7b, 0x49, 0xc0],
        &[0xc4, 0xe2, 0x78, 0x49, 0x05, 0, 0, 0, 0],
    ];
    for bytes in others {
        assert_eq!(decode(bytes), None, "{bytes:x?}");
    }
    assert_eq!(REGISTERS, 8);
}
