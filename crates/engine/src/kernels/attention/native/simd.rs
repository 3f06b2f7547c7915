//! Vectors of one instruction set, and the product of small tiles that all of attention is made of.
//!
//! C[m][n] (+)= Σₖ A[m·AM + k·AK] · B[k·BK + n]: A is read an element at a time and spread over the
//! lanes, B and C are contiguous in n, so nothing is packed for the sake of the product. Tried:
//! arrays of f32 left to the compiler, which reach the peak for some tile sizes and a hundredth of
//! it for others; tiles of 12 × 2 vectors (111 GFLOP/s a core where 6 × 4 gives 116 of 117).

use crate::simd::{Baseline, Fma, Lanes, Plain};

/// An instruction set and its vector of f32.
pub trait Simd: Fma {
    type V: Lanes;
    const WIDTH: usize = <Self::V as Lanes>::LANES;
    /// Vectors of a full tile's row, a power of two: with six rows of them the registers are full.
    const VECTORS: usize;
    /// Terms in an element of a product's factors: an f32, or a pair of bf16.
    const TERMS: usize = 1;

    /// Adds the products of two vectors of elements to a sum.
    ///
    /// # Safety
    /// As `Lanes`.
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V, sum: Self::V) -> Self::V {
        unsafe { a.fma(b, sum) }
    }

    /// What is packed as f32, `rows` rows of `length`, becomes elements, in place: neighbours of a row pair
    /// up. After an odd length stands a 0.
    ///
    /// # Safety
    /// As `Lanes`; `at` reaches over the rows, each to a multiple of 32.
    #[inline(always)]
    unsafe fn pair_in_rows(_at: *mut f32, _stride: usize, _rows: usize, _length: usize) {}

    /// As `pair_in_rows`, but two rows pair up to one, at `to`, which may be `from`; the last of an odd
    /// number with zeros.
    ///
    /// # Safety
    /// As `pair_in_rows`, to a multiple of 16.
    #[inline(always)]
    unsafe fn pair_rows(_from: *const f32, _to: *mut f32, _stride: usize, _rows: usize, _length: usize) {}
}

#[cfg(target_arch = "x86_64")]
pub mod x86 {
    use std::arch::x86_64::*;
    use std::mem::transmute;

    use super::{Fma, Lanes, Simd};

    #[derive(Clone, Copy)]
    pub struct Avx512;
    #[derive(Clone, Copy)]
    pub struct Avx2;

    impl Fma for Avx512 {
        const FUSED: bool = true;
    }
    impl Fma for Avx2 {
        const FUSED: bool = true;
    }
    impl Simd for Avx512 {
        type V = __m512;
        const VECTORS: usize = 4;
    }
    impl Simd for Avx2 {
        type V = __m256;
        const VECTORS: usize = 2;
    }

    /// AVX-512, and products by the instruction that multiplies and adds pairs of bf16.
    #[derive(Clone, Copy)]
    pub struct Pairs;

    impl Fma for Pairs {
        const FUSED: bool = true;
    }
    impl Simd for Pairs {
        type V = __m512;
        const VECTORS: usize = 4;
        const TERMS: usize = 2;

        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512, sum: __m512) -> __m512 {
            unsafe {
                _mm512_dpbf16_ps(sum, transmute::<__m512, __m512bh>(a), transmute::<__m512, __m512bh>(b))
            }
        }

        #[inline(always)]
        unsafe fn pair_in_rows(at: *mut f32, stride: usize, rows: usize, length: usize) {
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
}

impl Simd for Baseline {
    type V = Plain;
    const VECTORS: usize = if cfg!(target_arch = "aarch64") { 4 } else { 2 };
}

/// Defines functions of `V: Simd`, compiled for each instruction set; the best is called, of pairs where
/// products may be `$rounded` and the processor has them.
macro_rules! for_each_level {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident[$rounded:expr]($($arg:ident : $ty:ty),* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) {
            #[inline(always)]
            fn body<V: Simd>($($arg: $ty),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) {
                    body::<$crate::kernels::attention::native::simd::x86::Avx512>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) {
                    body::<$crate::kernels::attention::native::simd::x86::Avx2>($($arg),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512bf16")]
                fn pairs($($arg: $ty),*) {
                    body::<$crate::kernels::attention::native::simd::x86::Pairs>($($arg),*)
                }
                match $crate::simd::level() {
                    $crate::simd::Level::Avx512Bf16 if $rounded => return unsafe { pairs($($arg),*) },
                    $crate::simd::Level::Avx512 | $crate::simd::Level::Avx512Bf16 => return unsafe { avx512($($arg),*) },
                    $crate::simd::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::simd::Level::Baseline => {}
                }
            }
            body::<$crate::simd::Baseline>($($arg),*)
        }
    )*};
}
pub(super) use for_each_level;

/// The operands of a product: where A, B and C begin, the step from row to row of C, and whether C
/// is added to.
#[derive(Clone, Copy)]
struct Operands {
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    c_row: usize,
    add: bool,
}

impl Operands {
    #[inline(always)]
    unsafe fn at_row(self, row: usize, a_row: usize) -> Operands {
        unsafe { Operands { a: self.a.add(row * a_row), c: self.c.add(row * self.c_row), ..self } }
    }
}

/// The product above over m rows, n lanes, n a multiple of 16, and k terms.
///
/// # Safety
/// A, B and C hold what the sizes and strides reach.
#[inline(always)]
pub unsafe fn product<V: Simd, const AM: usize, const AK: usize, const BK: usize>(
    [m, n, k]: [usize; 3],
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    let k = k.div_ceil(V::TERMS);
    let mut at = 0;
    while at < n {
        // 16 lanes are whole vectors of every set but a full tile of only some.
        let vectors = V::VECTORS.min((n - at) / V::WIDTH);
        unsafe {
            let o = Operands { a, b: b.add(at), c: c.add(at), c_row, add };
            if vectors == 4 && V::VECTORS == 4 {
                column::<V, 4, AM, AK, BK>(m, k, o);
                at += 4 * V::WIDTH;
            } else if vectors >= 2 {
                column::<V, 2, AM, AK, BK>(m, k, o);
                at += 2 * V::WIDTH;
            } else {
                column::<V, 1, AM, AK, BK>(m, k, o);
                at += V::WIDTH;
            }
        }
    }
}

#[inline(always)]
unsafe fn column<V: Simd, const N: usize, const AM: usize, const AK: usize, const BK: usize>(
    m: usize,
    k: usize,
    o: Operands,
) {
    let mut row = 0;
    unsafe {
        while m - row >= 6 {
            tile::<V, 6, N, AM, AK, BK>(k, o.at_row(row, AM));
            row += 6;
        }
        if m - row >= 4 {
            tile::<V, 4, N, AM, AK, BK>(k, o.at_row(row, AM));
            row += 4;
        }
        if m - row >= 2 {
            tile::<V, 2, N, AM, AK, BK>(k, o.at_row(row, AM));
            row += 2;
        }
        if m - row >= 1 {
            tile::<V, 1, N, AM, AK, BK>(k, o.at_row(row, AM));
        }
    }
}

#[inline(always)]
unsafe fn tile<V: Simd, const M: usize, const N: usize, const AM: usize, const AK: usize, const BK: usize>(
    k: usize,
    o: Operands,
) {
    unsafe {
        let mut sums = [[<V::V>::splat(0.0); N]; M];
        for i in 0..k {
            let mut row = [<V::V>::splat(0.0); N];
            for (n, v) in row.iter_mut().enumerate() {
                *v = <V::V>::load(o.b.add(i * BK + n * V::WIDTH));
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let a = <V::V>::splat(*o.a.add(m * AM + i * AK));
                for (s, v) in sums.iter_mut().zip(&row) {
                    *s = V::add(a, *v, *s);
                }
            }
        }
        for (m, sums) in sums.iter().enumerate() {
            for (n, s) in sums.iter().enumerate() {
                let c = o.c.add(m * o.c_row + n * V::WIDTH);
                (if o.add { <V::V>::load(c).add(*s) } else { *s }).store(c);
            }
        }
    }
}
