//! Interleaving and deinterleaving of vectors.

use super::{Lanes, Plain};

/// Both directions, for two vectors.
///
/// # Safety
/// As for `Lanes`.
#[allow(clippy::missing_safety_doc)]
pub trait Zip: Lanes {
    /// The elements at even indices of both vectors, concatenated, and those at odd indices.
    unsafe fn unzip(pair: [Self; 2]) -> [Self; 2];
    /// Undoes `unzip`.
    unsafe fn zip(even_and_odd: [Self; 2]) -> [Self; 2];
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Zip;

    /// Selects elements of two vectors of 16 by index; the second vector's start at 16.
    #[inline(always)]
    unsafe fn permute(a: __m512, b: __m512, indices: &[i32; 16]) -> __m512 {
        // SAFETY: guaranteed by the caller; the array has the length of a vector.
        unsafe { _mm512_permutex2var_ps(a, _mm512_loadu_si512(indices.as_ptr().cast()), b) }
    }

    impl Zip for __m512 {
        #[inline(always)]
        unsafe fn unzip([a, b]: [Self; 2]) -> [Self; 2] {
            const EVEN: [i32; 16] = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30];
            const ODD: [i32; 16] = [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31];
            // SAFETY: guaranteed by the caller.
            unsafe { [permute(a, b, &EVEN), permute(a, b, &ODD)] }
        }
        #[inline(always)]
        unsafe fn zip([even, odd]: [Self; 2]) -> [Self; 2] {
            const FIRST: [i32; 16] = [0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23];
            const SECOND: [i32; 16] = [8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31];
            // SAFETY: guaranteed by the caller.
            unsafe { [permute(even, odd, &FIRST), permute(even, odd, &SECOND)] }
        }
    }

    impl Zip for __m256 {
        #[inline(always)]
        unsafe fn unzip([a, b]: [Self; 2]) -> [Self; 2] {
            // SAFETY: guaranteed by the caller.
            unsafe {
                let even = _mm256_castps_pd(_mm256_shuffle_ps::<0x88>(a, b));
                let odd = _mm256_castps_pd(_mm256_shuffle_ps::<0xdd>(a, b));
                // Reorders pairs, since unpacking works within 128-bit lanes.
                let [even, odd] = [_mm256_permute4x64_pd::<0xd8>(even), _mm256_permute4x64_pd::<0xd8>(odd)];
                [_mm256_castpd_ps(even), _mm256_castpd_ps(odd)]
            }
        }
        #[inline(always)]
        unsafe fn zip([even, odd]: [Self; 2]) -> [Self; 2] {
            // SAFETY: guaranteed by the caller.
            unsafe {
                let (low, high) = (_mm256_unpacklo_ps(even, odd), _mm256_unpackhi_ps(even, odd));
                [_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)]
            }
        }
    }
}

impl Zip for Plain {
    #[inline(always)]
    unsafe fn unzip([Plain(a), Plain(b)]: [Self; 2]) -> [Self; 2] {
        [Plain([a[0], a[2], b[0], b[2]]), Plain([a[1], a[3], b[1], b[3]])]
    }
    #[inline(always)]
    unsafe fn zip([Plain(a), Plain(b)]: [Self; 2]) -> [Self; 2] {
        [Plain([a[0], b[0], a[1], b[1]]), Plain([a[2], b[2], a[3], b[3]])]
    }
}
