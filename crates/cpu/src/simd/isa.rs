//! Instruction sets as types, for bodies that are compiled for each of them.

use super::words::{PortableWords, Words};
use super::{Lanes, Plain, Zip};

/// Arithmetic of one element.
pub trait Fma: Copy + Send + Sync + 'static {
    /// Whether a multiply-add is one instruction; otherwise `mul_add` is a slow library call.
    const FUSED: bool;

    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        if Self::FUSED { a.mul_add(b, c) } else { a * b + c }
    }
}

/// An instruction set: its vectors, and the element type of its products.
pub trait Isa: Fma {
    /// The vector of f32.
    type V: Zip;
    /// The vector of 32-bit words.
    type Words: Words<V = Self::V>;
    /// f32 per vector.
    const WIDTH: usize = <Self::V as Lanes>::LANES;
    /// Vector registers.
    const REGISTERS: usize;
    /// Rows of a product's largest tile, two vectors wide: three quarters of the registers hold sums.
    const ROWS: usize = 3 * Self::REGISTERS / 8;
    /// Terms per element of a product's factors: one f32, or a pair of bf16.
    const TERMS: usize = 1;
    /// Whether products use tiles (`amx`), which the caller has configured.
    const TILED: bool = false;
    /// Whether `add_bytes` is one instruction.
    const BYTES: bool = false;

    /// A vector of zeros.
    ///
    /// # Safety
    /// As for `Lanes`.
    #[inline(always)]
    unsafe fn zero() -> Self::V {
        // SAFETY: guaranteed by the caller.
        unsafe { Self::V::splat(0.0) }
    }

    /// Adds the products of two vectors of elements to a sum.
    ///
    /// # Safety
    /// As for `Lanes`.
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V, sum: Self::V) -> Self::V {
        // SAFETY: guaranteed by the caller.
        unsafe { a.fma(b, sum) }
    }

    /// Adds, to each word of `sums`, the products of four unsigned bytes by four signed bytes of `x`.
    ///
    /// # Safety
    /// As for `Lanes`.
    #[inline(always)]
    unsafe fn add_bytes(bytes: Self::Words, x: Self::Words, sums: Self::Words) -> Self::Words {
        let mut out = sums;
        let (bytes, x) = ((&raw const bytes).cast::<[u8; 4]>(), (&raw const x).cast::<[i8; 4]>());
        for i in 0..Self::WIDTH {
            // SAFETY: words have 32 bits, and there is one per lane.
            unsafe {
                let (sum, bytes, x) = ((&raw mut out).cast::<i32>().add(i), *bytes.add(i), *x.add(i));
                let products = bytes.iter().zip(x).map(|(byte, x)| *byte as i32 * x as i32);
                *sum = products.fold(*sum, i32::wrapping_add);
            }
        }
        out
    }

    /// Pairs the elements of two vectors of f32: neighbours (`NEIGHBOURS`), or elements of the same index.
    ///
    /// # Safety
    /// As for `Lanes`; the instruction set has elements of two terms.
    #[inline(always)]
    unsafe fn make_pairs<const NEIGHBOURS: bool>(first: Self::V, _second: Self::V) -> Self::V {
        first
    }

    /// Converts packed f32, `rows` rows of `length`, to elements in place: pairs neighbours of a row, with a 0 after an
    /// odd length.
    ///
    /// # Safety
    /// As for `Lanes`; `at` covers the rows, each up to a multiple of 32.
    #[inline(always)]
    unsafe fn pair_in_rows(_at: *mut f32, _stride: usize, _rows: usize, _length: usize) {}

    /// As for `pair_in_rows`, but pairs two rows into one, at `to`, which may equal `from`; the last of an odd number
    /// is paired with zeros.
    ///
    /// # Safety
    /// As for `pair_in_rows`, to a multiple of 16.
    #[inline(always)]
    unsafe fn pair_rows(_from: *const f32, _to: *mut f32, _stride: usize, _rows: usize, _length: usize) {}
}

/// The instructions that every processor of the target has.
#[derive(Clone, Copy)]
pub struct Baseline;

impl Fma for Baseline {
    const FUSED: bool = cfg!(target_arch = "aarch64");
}
impl Isa for Baseline {
    type V = Plain;
    type Words = PortableWords;
    const REGISTERS: usize = if cfg!(target_arch = "aarch64") { 32 } else { 16 };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::mem::transmute;

    use super::{Fma, Isa, Lanes};

    #[derive(Clone, Copy)]
    pub struct Avx2;
    #[derive(Clone, Copy)]
    pub struct Avx512;
    /// AVX-512 with products of pairs of bf16, which round to nearest even and flush subnormals: factors below 1.2e-38
    /// count as 0.
    #[derive(Clone, Copy)]
    pub struct Avx512Bf16;

    /// The same, with products of AMX tiles.
    #[derive(Clone, Copy)]
    pub struct Amx;

    impl Fma for Avx2 {
        const FUSED: bool = true;
    }
    impl Fma for Avx512 {
        const FUSED: bool = true;
    }
    impl Fma for Avx512Bf16 {
        const FUSED: bool = true;
    }
    impl Fma for Amx {
        const FUSED: bool = true;
    }

    impl Isa for Avx2 {
        type V = __m256;
        type Words = __m256i;
        const REGISTERS: usize = 16;
    }
    impl Isa for Avx512 {
        type V = __m512;
        type Words = __m512i;
        const REGISTERS: usize = 32;
    }
    impl Isa for Avx512Bf16 {
        type V = __m512;
        type Words = __m512i;
        const REGISTERS: usize = 32;
        const TERMS: usize = 2;
        const BYTES: bool = true;

        #[inline(always)]
        unsafe fn add_bytes(bytes: __m512i, x: __m512i, sums: __m512i) -> __m512i {
            // SAFETY: guaranteed by the caller.
            unsafe { _mm512_dpbusd_epi32(sums, bytes, x) }
        }

        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512, sum: __m512) -> __m512 {
            // SAFETY: guaranteed by the caller.
            unsafe {
                _mm512_dpbf16_ps(sum, transmute::<__m512, __m512bh>(a), transmute::<__m512, __m512bh>(b))
            }
        }

        #[inline(always)]
        unsafe fn make_pairs<const NEIGHBOURS: bool>(first: __m512, second: __m512) -> __m512 {
            // SAFETY: guaranteed by the caller.
            unsafe {
                let both = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
                if NEIGHBOURS {
                    return _mm512_castsi512_ps(both);
                }
                let place: [u32; 16] = std::array::from_fn(|i| i as u32 | (i as u32 + 16) << 16);
                let place = _mm512_loadu_si512(place.as_ptr().cast());
                _mm512_castsi512_ps(_mm512_permutexvar_epi16(place, both))
            }
        }

        #[inline(always)]
        unsafe fn pair_in_rows(at: *mut f32, stride: usize, rows: usize, length: usize) {
            // SAFETY: rows cover a multiple of 32, and elements are read before they are overwritten.
            unsafe {
                for row in 0..rows {
                    let at = at.add(row * stride);
                    for i in (0..length).step_by(32) {
                        let both = _mm512_cvtne2ps_pbh(__m512::load(at.add(i + 16)), __m512::load(at.add(i)));
                        transmute::<__m512bh, __m512>(both).store(at.add(i / 2));
                    }
                }
            }
        }

        #[inline(always)]
        unsafe fn pair_rows(from: *const f32, to: *mut f32, stride: usize, rows: usize, length: usize) {
            // SAFETY: rows cover a multiple of 16; the last of an odd number has no partner, and none is read.
            unsafe {
                let place: [u32; 16] = std::array::from_fn(|i| i as u32 | (i as u32 + 16) << 16);
                let place = _mm512_loadu_si512(place.as_ptr().cast());
                for pair in 0..rows.div_ceil(2) {
                    let (even, to) = (from.add(2 * pair * stride), to.add(pair * stride));
                    for i in (0..length).step_by(16) {
                        let odd = match 2 * pair + 1 < rows {
                            true => __m512::load(even.add(stride + i)),
                            false => _mm512_setzero_ps(),
                        };
                        let both = _mm512_cvtne2ps_pbh(odd, __m512::load(even.add(i)));
                        let turned = _mm512_permutexvar_epi16(place, transmute::<__m512bh, __m512i>(both));
                        _mm512_castsi512_ps(turned).store(to.add(i));
                    }
                }
            }
        }
    }

    impl Isa for Amx {
        type V = __m512;
        type Words = __m512i;
        const REGISTERS: usize = Avx512Bf16::REGISTERS;
        const TERMS: usize = Avx512Bf16::TERMS;
        const TILED: bool = true;
        const BYTES: bool = Avx512Bf16::BYTES;

        #[inline(always)]
        unsafe fn add_bytes(bytes: __m512i, x: __m512i, sums: __m512i) -> __m512i {
            // SAFETY: guaranteed by the caller.
            unsafe { Avx512Bf16::add_bytes(bytes, x, sums) }
        }

        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512, sum: __m512) -> __m512 {
            // SAFETY: guaranteed by the caller.
            unsafe { Avx512Bf16::add(a, b, sum) }
        }

        #[inline(always)]
        unsafe fn make_pairs<const NEIGHBOURS: bool>(first: __m512, second: __m512) -> __m512 {
            // SAFETY: guaranteed by the caller.
            unsafe { Avx512Bf16::make_pairs::<NEIGHBOURS>(first, second) }
        }

        #[inline(always)]
        unsafe fn pair_in_rows(at: *mut f32, stride: usize, rows: usize, length: usize) {
            // SAFETY: guaranteed by the caller.
            unsafe { Avx512Bf16::pair_in_rows(at, stride, rows, length) }
        }

        #[inline(always)]
        unsafe fn pair_rows(from: *const f32, to: *mut f32, stride: usize, rows: usize, length: usize) {
            // SAFETY: guaranteed by the caller.
            unsafe { Avx512Bf16::pair_rows(from, to, stride, rows, length) }
        }
    }
}
#[cfg(target_arch = "x86_64")]
pub use x86::{Amx, Avx2, Avx512, Avx512Bf16};
