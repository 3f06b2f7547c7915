//! Vectors of 32-bit words, one per f32 lane, from which codes of a few bits are extracted.

use super::{Lanes, Plain};

/// A vector register of words.
///
/// # Safety
/// Of every method: the processor has the instruction set, and the pointers are valid for the elements that are read.
// One section applies to all methods.
#[allow(clippy::missing_safety_doc)]
pub trait Words: Copy {
    /// The vector of f32 of the same set.
    type V: Lanes;

    unsafe fn zero() -> Self;
    /// Loads one little-endian word per lane.
    unsafe fn load(p: *const u8) -> Self;
    /// Eight words, repeated, from word `from` on.
    unsafe fn load_eight(p: *const u8, from: usize) -> Self;
    /// Pieces of 16 bytes at a stride of `stride` bytes: the first `COUNT` pieces, then zeros.
    unsafe fn load_pieces<const COUNT: usize>(p: *const u8, stride: usize) -> Self;
    unsafe fn and(self, mask: u32) -> Self;
    unsafe fn or(self, other: Self) -> Self;
    unsafe fn shl<const BITS: u32>(self) -> Self;
    unsafe fn shr<const BITS: u32>(self) -> Self;
    /// Shifts each word right by the word of `bits`, which is less than 32.
    unsafe fn shr_each(self, bits: Self) -> Self;
    /// The words, at most 2³¹, as numbers; exact below 2²⁴.
    unsafe fn to_f32(self) -> Self::V;

    /// Two f16 from each of `COUNT` addresses at a stride of `stride` bytes; each is broadcast to the four lanes of its
    /// address, and the other lanes are 0.
    unsafe fn spread_halves<const COUNT: usize>(p: *const u8, stride: usize) -> [Self::V; 2];
    /// Broadcasts values to `LANES` lanes each: contiguous values (4 lanes), or values at a stride of `STRIDE` (8
    /// lanes).
    unsafe fn spread<const LANES: usize, const STRIDE: usize>(values: *const f32) -> Self::V;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Words;

    /// The methods that are one instruction.
    macro_rules! direct {
        ($zero:ident, $load:ident, $splat:ident, $and:ident, $or:ident, $shr_each:ident, $to_f32:ident) => {
            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: guaranteed by the caller.
                unsafe { $zero() }
            }
            #[inline(always)]
            unsafe fn load(p: *const u8) -> Self {
                // SAFETY: guaranteed by the caller.
                unsafe { $load(p.cast()) }
            }
            #[inline(always)]
            unsafe fn and(self, mask: u32) -> Self {
                // SAFETY: guaranteed by the caller.
                unsafe { $and(self, $splat(mask as i32)) }
            }
            #[inline(always)]
            unsafe fn or(self, other: Self) -> Self {
                // SAFETY: guaranteed by the caller.
                unsafe { $or(self, other) }
            }
            #[inline(always)]
            unsafe fn shr_each(self, bits: Self) -> Self {
                // SAFETY: guaranteed by the caller.
                unsafe { $shr_each(self, bits) }
            }
            #[inline(always)]
            unsafe fn to_f32(self) -> Self::V {
                // SAFETY: guaranteed by the caller.
                unsafe { $to_f32(self) }
            }
        };
    }

    /// Loads words from four addresses.
    ///
    /// # Safety
    /// As for `Words`.
    #[inline(always)]
    unsafe fn gather<const COUNT: usize>(p: *const u8, stride: usize) -> __m128i {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let word = |i: usize| p.add(i * stride).cast::<i32>().read_unaligned();
            let mut words = _mm_cvtsi32_si128(word(0));
            if COUNT > 1 {
                words = _mm_insert_epi32::<1>(words, word(1));
            }
            if COUNT > 2 {
                words = _mm_insert_epi32::<2>(words, word(2));
            }
            if COUNT > 3 {
                words = _mm_insert_epi32::<3>(words, word(3));
            }
            words
        }
    }

    impl Words for __m512i {
        type V = __m512;

        direct!(
            _mm512_setzero_si512,
            _mm512_loadu_si512,
            _mm512_set1_epi32,
            _mm512_and_si512,
            _mm512_or_si512,
            _mm512_srlv_epi32,
            _mm512_cvtepi32_ps
        );

        #[inline(always)]
        unsafe fn shl<const BITS: u32>(self) -> Self {
            // SAFETY: guaranteed by the caller.
            unsafe { _mm512_slli_epi32::<BITS>(self) }
        }
        #[inline(always)]
        unsafe fn shr<const BITS: u32>(self) -> Self {
            // SAFETY: guaranteed by the caller.
            unsafe { _mm512_srli_epi32::<BITS>(self) }
        }
        #[inline(always)]
        unsafe fn load_eight(p: *const u8, _from: usize) -> Self {
            // SAFETY: guaranteed by the caller.
            unsafe { _mm512_broadcast_i64x4(_mm256_loadu_si256(p.cast())) }
        }
        #[inline(always)]
        unsafe fn load_pieces<const COUNT: usize>(p: *const u8, stride: usize) -> Self {
            // SAFETY: guaranteed by the caller.
            unsafe {
                let piece = |i: usize| _mm_loadu_si128(p.add(i * stride).cast());
                let mut all = _mm512_zextsi128_si512(piece(0));
                if COUNT > 1 {
                    all = _mm512_inserti32x4::<1>(all, piece(1));
                }
                if COUNT > 2 {
                    all = _mm512_inserti32x4::<2>(all, piece(2));
                }
                if COUNT > 3 {
                    all = _mm512_inserti32x4::<3>(all, piece(3));
                }
                all
            }
        }
        #[inline(always)]
        unsafe fn spread_halves<const COUNT: usize>(p: *const u8, stride: usize) -> [__m512; 2] {
            // SAFETY: guaranteed by the caller.
            unsafe {
                let halves = _mm512_castps256_ps512(_mm256_cvtph_ps(gather::<COUNT>(p, stride)));
                let first = _mm512_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6);
                let second = _mm512_setr_epi32(1, 1, 1, 1, 3, 3, 3, 3, 5, 5, 5, 5, 7, 7, 7, 7);
                [_mm512_permutexvar_ps(first, halves), _mm512_permutexvar_ps(second, halves)]
            }
        }
        #[inline(always)]
        unsafe fn spread<const LANES: usize, const STRIDE: usize>(values: *const f32) -> __m512 {
            // SAFETY: guaranteed by the caller.
            unsafe {
                if LANES == 4 {
                    let places = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
                    _mm512_permutexvar_ps(places, _mm512_castps128_ps512(_mm_loadu_ps(values)))
                } else {
                    let (first, second) = (_mm512_set1_ps(*values), _mm512_set1_ps(*values.add(STRIDE)));
                    _mm512_mask_blend_ps(0xff00, first, second)
                }
            }
        }
    }

    impl Words for __m256i {
        type V = __m256;

        direct!(
            _mm256_setzero_si256,
            _mm256_loadu_si256,
            _mm256_set1_epi32,
            _mm256_and_si256,
            _mm256_or_si256,
            _mm256_srlv_epi32,
            _mm256_cvtepi32_ps
        );

        #[inline(always)]
        unsafe fn shl<const BITS: u32>(self) -> Self {
            // SAFETY: guaranteed by the caller. A shift by a register is as fast, and accepts the trait's constant.
            unsafe { _mm256_sll_epi32(self, _mm_cvtsi32_si128(BITS as i32)) }
        }
        #[inline(always)]
        unsafe fn shr<const BITS: u32>(self) -> Self {
            // SAFETY: as `shl`.
            unsafe { _mm256_srl_epi32(self, _mm_cvtsi32_si128(BITS as i32)) }
        }
        #[inline(always)]
        unsafe fn load_eight(p: *const u8, _from: usize) -> Self {
            // SAFETY: guaranteed by the caller.
            unsafe { Self::load(p) }
        }
        #[inline(always)]
        unsafe fn load_pieces<const COUNT: usize>(p: *const u8, stride: usize) -> Self {
            // SAFETY: guaranteed by the caller.
            unsafe {
                let piece = |i: usize| _mm_loadu_si128(p.add(i * stride).cast());
                let first = _mm256_zextsi128_si256(piece(0));
                if COUNT > 1 { _mm256_inserti128_si256::<1>(first, piece(1)) } else { first }
            }
        }
        #[inline(always)]
        unsafe fn spread_halves<const COUNT: usize>(p: *const u8, stride: usize) -> [__m256; 2] {
            // SAFETY: guaranteed by the caller; two addresses fill the lanes.
            unsafe {
                let two = if COUNT > 1 { gather::<2>(p, stride) } else { gather::<1>(p, stride) };
                let halves = _mm256_castps128_ps256(_mm_cvtph_ps(two));
                let first = _mm256_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2);
                let second = _mm256_setr_epi32(1, 1, 1, 1, 3, 3, 3, 3);
                [_mm256_permutevar8x32_ps(halves, first), _mm256_permutevar8x32_ps(halves, second)]
            }
        }
        #[inline(always)]
        unsafe fn spread<const LANES: usize, const STRIDE: usize>(values: *const f32) -> __m256 {
            // SAFETY: guaranteed by the caller.
            unsafe {
                if LANES == 4 {
                    _mm256_set_m128(_mm_set1_ps(*values.add(1)), _mm_set1_ps(*values))
                } else {
                    _mm256_set1_ps(*values)
                }
            }
        }
    }
}

/// Four words that the compiler maps to the target's instructions (NEON, SSE2).
#[derive(Clone, Copy)]
pub struct PortableWords([u32; 4]);

impl Words for PortableWords {
    type V = Plain;

    #[inline(always)]
    unsafe fn zero() -> Self {
        PortableWords([0; 4])
    }
    #[inline(always)]
    unsafe fn load(p: *const u8) -> Self {
        // SAFETY: guaranteed by the caller.
        PortableWords(unsafe { p.cast::<[[u8; 4]; 4]>().read() }.map(u32::from_le_bytes))
    }
    #[inline(always)]
    unsafe fn load_eight(p: *const u8, from: usize) -> Self {
        // SAFETY: guaranteed by the caller.
        unsafe { Self::load(p.add(from % 8 * 4)) }
    }
    #[inline(always)]
    unsafe fn load_pieces<const COUNT: usize>(p: *const u8, _stride: usize) -> Self {
        // SAFETY: guaranteed by the caller; one piece fills the lanes.
        unsafe { Self::load(p) }
    }
    #[inline(always)]
    unsafe fn and(self, mask: u32) -> Self {
        PortableWords(self.0.map(|word| word & mask))
    }
    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        PortableWords(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }
    #[inline(always)]
    unsafe fn shl<const BITS: u32>(self) -> Self {
        PortableWords(self.0.map(|word| word << BITS))
    }
    #[inline(always)]
    unsafe fn shr<const BITS: u32>(self) -> Self {
        PortableWords(self.0.map(|word| word >> BITS))
    }
    #[inline(always)]
    unsafe fn shr_each(self, bits: Self) -> Self {
        PortableWords(std::array::from_fn(|i| self.0[i] >> bits.0[i]))
    }
    #[inline(always)]
    unsafe fn to_f32(self) -> Plain {
        // Signed, since every set has that conversion.
        let values = self.0.map(|word| word as i32 as f32);
        // SAFETY: four lanes are read.
        unsafe { Plain::load(values.as_ptr()) }
    }
    #[inline(always)]
    unsafe fn spread_halves<const COUNT: usize>(p: *const u8, _stride: usize) -> [Plain; 2] {
        // SAFETY: guaranteed by the caller; one address fills the lanes.
        unsafe { Plain::splat_halves(p.cast::<[[u8; 2]; 2]>().read()) }
    }
    #[inline(always)]
    unsafe fn spread<const LANES: usize, const STRIDE: usize>(values: *const f32) -> Plain {
        // SAFETY: guaranteed by the caller.
        unsafe { Plain::splat(*values) }
    }
}
