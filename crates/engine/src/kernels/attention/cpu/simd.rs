//! Vectors of one instruction set, and the product of small tiles that all of attention is made of.
//!
//! C[m][n] (+)= Σₖ A[m·AM + k·AK] · B[k·BK + n]: A is read an element at a time and spread over the
//! lanes, B and C are contiguous in n, so nothing is packed for the sake of the product. Tried:
//! arrays of f32 left to the compiler, which reach the peak for some tile sizes and a hundredth of
//! it for others; tiles of 12 × 2 vectors (111 GFLOP/s a core where 6 × 4 gives 116 of 117).

use crate::kernels::numeric::Isa;

/// A vector of f32. `ROWS` × `VECTORS` accumulators fit the registers.
pub trait Simd: Isa {
    type V: Copy;
    const WIDTH: usize;
    /// Vectors of a full tile's row; a power of two.
    const VECTORS: usize;

    fn zero() -> Self::V;
    /// # Safety
    /// `WIDTH` floats are readable at `p`.
    unsafe fn load(p: *const f32) -> Self::V;
    /// # Safety
    /// `WIDTH` floats are writable at `p`.
    unsafe fn store(p: *mut f32, v: Self::V);
    fn splat(v: f32) -> Self::V;
    fn add(a: Self::V, b: Self::V) -> Self::V;
    fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
}

#[cfg(target_arch = "x86_64")]
pub mod x86 {
    use super::{Isa, Simd};
    use std::arch::x86_64::*;

    macro_rules! simd {
        ($name:ident, $vector:ty, $width:literal, $vectors:literal, $zero:ident, $load:ident, $store:ident,
         $splat:ident, $add:ident, $fma:ident) => {
            #[derive(Clone, Copy)]
            pub struct $name;
            impl Isa for $name {
                const FUSED: bool = true;
            }
            // Called only where the processor was seen to have the instructions.
            impl Simd for $name {
                type V = $vector;
                const WIDTH: usize = $width;
                const VECTORS: usize = $vectors;
                #[inline(always)]
                fn zero() -> $vector {
                    unsafe { $zero() }
                }
                #[inline(always)]
                unsafe fn load(p: *const f32) -> $vector {
                    unsafe { $load(p) }
                }
                #[inline(always)]
                unsafe fn store(p: *mut f32, v: $vector) {
                    unsafe { $store(p, v) }
                }
                #[inline(always)]
                fn splat(v: f32) -> $vector {
                    unsafe { $splat(v) }
                }
                #[inline(always)]
                fn add(a: $vector, b: $vector) -> $vector {
                    unsafe { $add(a, b) }
                }
                #[inline(always)]
                fn mul_add(a: $vector, b: $vector, c: $vector) -> $vector {
                    unsafe { $fma(a, b, c) }
                }
            }
        };
    }
    simd!(
        Avx512,
        __m512,
        16,
        4,
        _mm512_setzero_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_set1_ps,
        _mm512_add_ps,
        _mm512_fmadd_ps
    );
    simd!(
        Avx2,
        __m256,
        8,
        2,
        _mm256_setzero_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_set1_ps,
        _mm256_add_ps,
        _mm256_fmadd_ps
    );
}

/// Four lanes that every processor has (SSE2, NEON, or none at all).
#[derive(Clone, Copy)]
pub struct Four;

impl Isa for Four {
    const FUSED: bool = cfg!(target_arch = "aarch64");
}

impl Simd for Four {
    type V = [f32; 4];
    const WIDTH: usize = 4;
    const VECTORS: usize = if cfg!(target_arch = "aarch64") { 4 } else { 2 };
    #[inline(always)]
    fn zero() -> [f32; 4] {
        [0.0; 4]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> [f32; 4] {
        unsafe { p.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: [f32; 4]) {
        unsafe { p.cast::<[f32; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    fn splat(v: f32) -> [f32; 4] {
        [v; 4]
    }
    #[inline(always)]
    fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn mul_add(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| Self::fma(a[i], b[i], c[i]))
    }
}

/// Defines functions of `V: Simd`, compiled for each instruction set; the best is called.
macro_rules! for_each_isa {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident : $ty:ty),* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) {
            #[inline(always)]
            fn body<V: Simd>($($arg: $ty),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) {
                    body::<$crate::kernels::attention::cpu::simd::x86::Avx512>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) {
                    body::<$crate::kernels::attention::cpu::simd::x86::Avx2>($($arg),*)
                }
                match $crate::kernels::numeric::level() {
                    $crate::kernels::numeric::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    $crate::kernels::numeric::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::kernels::numeric::Level::Baseline => {}
                }
            }
            body::<$crate::kernels::attention::cpu::simd::Four>($($arg),*)
        }
    )*};
}
pub(super) use for_each_isa;

/// The product above over m rows and n lanes, n a multiple of 16.
///
/// # Safety
/// A, B and C hold what the sizes and strides reach.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
pub unsafe fn product<V: Simd, const AM: usize, const AK: usize, const BK: usize>(
    [m, n, k]: [usize; 3],
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    let mut at = 0;
    while at < n {
        // 16 lanes are whole vectors of every set but a full tile of only some.
        let vectors = V::VECTORS.min((n - at) / V::WIDTH);
        unsafe {
            let (b, c) = (b.add(at), c.add(at));
            if vectors == 4 && V::VECTORS == 4 {
                column::<V, 4, AM, AK, BK>(m, k, a, b, c, c_row, add);
                at += 4 * V::WIDTH;
            } else if vectors >= 2 {
                column::<V, 2, AM, AK, BK>(m, k, a, b, c, c_row, add);
                at += 2 * V::WIDTH;
            } else {
                column::<V, 1, AM, AK, BK>(m, k, a, b, c, c_row, add);
                at += V::WIDTH;
            }
        }
    }
}

#[allow(clippy::too_many_arguments)]
#[inline(always)]
unsafe fn column<V: Simd, const N: usize, const AM: usize, const AK: usize, const BK: usize>(
    m: usize,
    k: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    let mut row = 0;
    unsafe {
        while m - row >= 6 {
            tile::<V, 6, N, AM, AK, BK>(k, a.add(row * AM), b, c.add(row * c_row), c_row, add);
            row += 6;
        }
        if m - row >= 4 {
            tile::<V, 4, N, AM, AK, BK>(k, a.add(row * AM), b, c.add(row * c_row), c_row, add);
            row += 4;
        }
        while m - row >= 1 {
            tile::<V, 1, N, AM, AK, BK>(k, a.add(row * AM), b, c.add(row * c_row), c_row, add);
            row += 1;
        }
    }
}

#[inline(always)]
unsafe fn tile<V: Simd, const M: usize, const N: usize, const AM: usize, const AK: usize, const BK: usize>(
    k: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    let mut sums = [[V::zero(); N]; M];
    unsafe {
        for i in 0..k {
            let mut row = [V::zero(); N];
            for (n, v) in row.iter_mut().enumerate() {
                *v = V::load(b.add(i * BK + n * V::WIDTH));
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let a = V::splat(*a.add(m * AM + i * AK));
                for (s, v) in sums.iter_mut().zip(&row) {
                    *s = V::mul_add(a, *v, *s);
                }
            }
        }
        for (m, sums) in sums.iter().enumerate() {
            for (n, s) in sums.iter().enumerate() {
                let c = c.add(m * c_row + n * V::WIDTH);
                V::store(c, if add { V::add(V::load(c), *s) } else { *s });
            }
        }
    }
}
