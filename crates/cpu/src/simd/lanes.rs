//! Vectors of f32, one implementation per instruction set, for products and attention.
//!
//! Every method is `inline(always)` and is called only below a function that enables the set.

use half::{bf16, f16};

/// A vector register of f32.
///
/// # Safety
/// Of every method: the processor has the instruction set, and the pointers are valid for `LANES` elements (for `count`
/// in the masked forms).
// One section applies to all methods.
#[allow(clippy::missing_safety_doc)]
pub trait Lanes: Copy {
    const LANES: usize;

    unsafe fn splat(v: f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn store(self, p: *mut f32);
    /// The first `count` elements, at most `LANES`; 0 after them.
    unsafe fn load_first(p: *const f32, count: usize) -> Self;
    unsafe fn store_first(self, p: *mut f32, count: usize);
    unsafe fn add(self, other: Self) -> Self;
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: guaranteed by the caller. A product by −1 is exact.
        unsafe { other.fma(Self::splat(-1.0), self) }
    }
    unsafe fn mul(self, other: Self) -> Self;
    /// self · b + c, rounded once where the set has a fused instruction.
    unsafe fn fma(self, b: Self, c: Self) -> Self;
    /// The sum of the elements, halves first.
    unsafe fn sum(self) -> f32;
    /// `LANES` halves, widened.
    unsafe fn load_f16(p: *const f16) -> Self;
    unsafe fn load_bf16(p: *const bf16) -> Self;
    /// Transposes the square of the first `LANES` vectors.
    unsafe fn transpose(rows: &mut [Self; 16]);
    /// `LANES` signed bytes as numbers.
    unsafe fn load_i8(p: *const i8) -> Self;
    /// Elements of a table of 16, by `LANES` codes: the four bits of each byte from `SHIFT` on.
    unsafe fn pick<const SHIFT: u32>(table: &[Self; 4], codes: *const u8) -> Self;
    /// The value of an f16.
    unsafe fn widen(bits: u16) -> f32;
    /// Broadcasts each of two little-endian f16.
    unsafe fn splat_halves(halves: [[u8; 2]; 2]) -> [Self; 2];
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use half::{bf16, f16};

    use super::Lanes;

    /// The methods that are one instruction.
    macro_rules! direct {
        ($splat:ident, $load:ident, $store:ident, $add:ident, $mul:ident, $fma:ident) => {
            #[inline(always)]
            unsafe fn splat(v: f32) -> Self {
                // SAFETY: guaranteed by the caller.
                unsafe { $splat(v) }
            }
            #[inline(always)]
            unsafe fn load(p: *const f32) -> Self {
                // SAFETY: guaranteed by the caller.
                unsafe { $load(p) }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut f32) {
                // SAFETY: guaranteed by the caller.
                unsafe { $store(p, self) }
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: guaranteed by the caller.
                unsafe { $add(self, other) }
            }
            #[inline(always)]
            unsafe fn mul(self, other: Self) -> Self {
                // SAFETY: guaranteed by the caller.
                unsafe { $mul(self, other) }
            }
            #[inline(always)]
            unsafe fn fma(self, b: Self, c: Self) -> Self {
                // SAFETY: guaranteed by the caller.
                unsafe { $fma(self, b, c) }
            }
        };
    }

    impl Lanes for __m512 {
        const LANES: usize = 16;

        direct!(
            _mm512_set1_ps,
            _mm512_loadu_ps,
            _mm512_storeu_ps,
            _mm512_add_ps,
            _mm512_mul_ps,
            _mm512_fmadd_ps
        );

        #[inline(always)]
        unsafe fn load_i8(p: *const i8) -> Self {
            // SAFETY: guaranteed by the caller.
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) }
        }
        #[inline(always)]
        unsafe fn pick<const SHIFT: u32>(table: &[Self; 4], codes: *const u8) -> Self {
            // SAFETY: guaranteed by the caller; four bits of an index are used.
            unsafe {
                let codes = _mm512_cvtepu8_epi32(_mm_loadu_si128(codes.cast()));
                _mm512_permutexvar_ps(_mm512_srli_epi32::<SHIFT>(codes), table[0])
            }
        }
        #[inline(always)]
        unsafe fn splat_halves(halves: [[u8; 2]; 2]) -> [Self; 2] {
            // SAFETY: guaranteed by the caller.
            unsafe {
                let both = _mm_cvtph_ps(_mm_cvtsi32_si128(std::mem::transmute::<[[u8; 2]; 2], i32>(halves)));
                [_mm512_broadcastss_ps(both), _mm512_broadcastss_ps(_mm_movehdup_ps(both))]
            }
        }
        #[inline(always)]
        unsafe fn widen(bits: u16) -> f32 {
            // SAFETY: guaranteed by the caller.
            unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits as i32))) }
        }
        #[inline(always)]
        unsafe fn load_first(p: *const f32, count: usize) -> Self {
            // SAFETY: guaranteed by the caller.
            unsafe { _mm512_maskz_loadu_ps(((1u32 << count) - 1) as u16, p) }
        }
        #[inline(always)]
        unsafe fn store_first(self, p: *mut f32, count: usize) {
            // SAFETY: guaranteed by the caller.
            unsafe { _mm512_mask_storeu_ps(p, ((1u32 << count) - 1) as u16, self) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: guaranteed by the caller.
            unsafe {
                let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self)));
                _mm256_add_ps(_mm512_castps512_ps256(self), high).sum()
            }
        }
        #[inline(always)]
        unsafe fn load_f16(p: *const f16) -> Self {
            // SAFETY: guaranteed by the caller.
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
        }
        #[inline(always)]
        unsafe fn load_bf16(p: *const bf16) -> Self {
            // SAFETY: guaranteed by the caller.
            unsafe {
                let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
            }
        }
        #[inline(always)]
        unsafe fn transpose(rows: &mut [Self; 16]) {
            // SAFETY: guaranteed by the caller.
            unsafe {
                // Pairs, then groups of four within each 128-bit lane, then the lanes themselves.
                let mut t = *rows;
                for i in 0..8 {
                    t[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
                    t[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
                }
                let mut q = t;
                for i in 0..4 {
                    let d = |k: usize| _mm512_castps_pd(t[4 * i + k]);
                    q[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(d(0), d(2)));
                    q[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(d(0), d(2)));
                    q[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(d(1), d(3)));
                    q[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(d(1), d(3)));
                }
                for k in 0..4 {
                    let low = _mm512_shuffle_f32x4::<0x88>(q[k], q[4 + k]);
                    let high = _mm512_shuffle_f32x4::<0xdd>(q[k], q[4 + k]);
                    let low2 = _mm512_shuffle_f32x4::<0x88>(q[8 + k], q[12 + k]);
                    let high2 = _mm512_shuffle_f32x4::<0xdd>(q[8 + k], q[12 + k]);
                    rows[k] = _mm512_shuffle_f32x4::<0x88>(low, low2);
                    rows[8 + k] = _mm512_shuffle_f32x4::<0xdd>(low, low2);
                    rows[4 + k] = _mm512_shuffle_f32x4::<0x88>(high, high2);
                    rows[12 + k] = _mm512_shuffle_f32x4::<0xdd>(high, high2);
                }
            }
        }
    }

    impl Lanes for __m256 {
        const LANES: usize = 8;

        direct!(
            _mm256_set1_ps,
            _mm256_loadu_ps,
            _mm256_storeu_ps,
            _mm256_add_ps,
            _mm256_mul_ps,
            _mm256_fmadd_ps
        );

        #[inline(always)]
        unsafe fn load_i8(p: *const i8) -> Self {
            // SAFETY: guaranteed by the caller.
            unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))) }
        }
        #[inline(always)]
        unsafe fn pick<const SHIFT: u32>(table: &[Self; 4], codes: *const u8) -> Self {
            // SAFETY: guaranteed by the caller; three bits of an index are used, and the fourth selects the half by the
            // sign of a blend.
            unsafe {
                let codes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(codes.cast()));
                let fourth = match SHIFT {
                    0 => _mm256_slli_epi32::<28>(codes),
                    _ => _mm256_slli_epi32::<24>(codes),
                };
                let places = match SHIFT {
                    0 => codes,
                    _ => _mm256_srli_epi32::<4>(codes),
                };
                let [low, high] = [table[0], table[1]].map(|half| _mm256_permutevar8x32_ps(half, places));
                _mm256_blendv_ps(low, high, _mm256_castsi256_ps(fourth))
            }
        }
        #[inline(always)]
        unsafe fn splat_halves(halves: [[u8; 2]; 2]) -> [Self; 2] {
            // SAFETY: guaranteed by the caller.
            unsafe {
                let both = _mm_cvtph_ps(_mm_cvtsi32_si128(std::mem::transmute::<[[u8; 2]; 2], i32>(halves)));
                [_mm256_broadcastss_ps(both), _mm256_broadcastss_ps(_mm_movehdup_ps(both))]
            }
        }
        #[inline(always)]
        unsafe fn widen(bits: u16) -> f32 {
            // SAFETY: guaranteed by the caller.
            unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits as i32))) }
        }
        #[inline(always)]
        unsafe fn load_first(p: *const f32, count: usize) -> Self {
            // SAFETY: guaranteed by the caller.
            unsafe { _mm256_maskload_ps(p, mask_first(count)) }
        }
        #[inline(always)]
        unsafe fn store_first(self, p: *mut f32, count: usize) {
            // SAFETY: guaranteed by the caller.
            unsafe { _mm256_maskstore_ps(p, mask_first(count), self) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: guaranteed by the caller.
            unsafe {
                let four = _mm_add_ps(_mm256_castps256_ps128(self), _mm256_extractf128_ps::<1>(self));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
            }
        }
        #[inline(always)]
        unsafe fn load_f16(p: *const f16) -> Self {
            // SAFETY: guaranteed by the caller.
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
        }
        #[inline(always)]
        unsafe fn load_bf16(p: *const bf16) -> Self {
            // SAFETY: guaranteed by the caller.
            unsafe {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            }
        }
        #[inline(always)]
        unsafe fn transpose(rows: &mut [Self; 16]) {
            // SAFETY: guaranteed by the caller.
            unsafe {
                let mut t = *rows;
                for i in 0..4 {
                    t[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
                    t[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
                }
                let mut q = t;
                for i in 0..2 {
                    let d = |k: usize| _mm256_castps_pd(t[4 * i + k]);
                    q[4 * i] = _mm256_castpd_ps(_mm256_unpacklo_pd(d(0), d(2)));
                    q[4 * i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(d(0), d(2)));
                    q[4 * i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(d(1), d(3)));
                    q[4 * i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(d(1), d(3)));
                }
                for k in 0..4 {
                    rows[k] = _mm256_permute2f128_ps::<0x20>(q[k], q[4 + k]);
                    rows[4 + k] = _mm256_permute2f128_ps::<0x31>(q[k], q[4 + k]);
                }
            }
        }
    }

    /// A mask of the first `count` of eight.
    #[inline(always)]
    unsafe fn mask_first(count: usize) -> __m256i {
        const MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        // SAFETY: guaranteed by the caller.
        unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - count).cast()) }
    }
}

/// Four lanes that the compiler maps to the target's instructions (NEON, SSE2).
#[derive(Clone, Copy)]
pub struct Plain(pub(super) [f32; 4]);

impl Lanes for Plain {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(v: f32) -> Self {
        Plain([v; 4])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: guaranteed by the caller.
        Plain(unsafe { p.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self {
        // SAFETY: guaranteed by the caller.
        Plain(unsafe { p.cast::<[i8; 4]>().read_unaligned() }.map(f32::from))
    }
    #[inline(always)]
    unsafe fn pick<const SHIFT: u32>(table: &[Self; 4], codes: *const u8) -> Self {
        // SAFETY: guaranteed by the caller.
        let codes = unsafe { codes.cast::<[u8; 4]>().read_unaligned() };
        Plain(codes.map(|code| (code >> SHIFT & 15) as usize).map(|at| table[at / 4].0[at % 4]))
    }
    #[inline(always)]
    unsafe fn splat_halves(halves: [[u8; 2]; 2]) -> [Self; 2] {
        halves.map(|bytes| Plain([f16::from_le_bytes(bytes).to_f32(); 4]))
    }
    #[inline(always)]
    unsafe fn widen(bits: u16) -> f32 {
        half::f16::from_bits(bits).to_f32()
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, count: usize) -> Self {
        // SAFETY: guaranteed by the caller.
        Plain(std::array::from_fn(|i| if i < count { unsafe { *p.add(i) } } else { 0.0 }))
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, count: usize) {
        for (i, v) in self.0.iter().enumerate().take(count) {
            // SAFETY: guaranteed by the caller.
            unsafe { *p.add(i) = *v };
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Plain(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Plain(std::array::from_fn(|i| self.0[i] * other.0[i]))
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        Plain(std::array::from_fn(|i| {
            // Without a fused instruction, `mul_add` is a library call.
            if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
                self.0[i].mul_add(b.0[i], c.0[i])
            } else {
                self.0[i] * b.0[i] + c.0[i]
            }
        }))
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        (self.0[0] + self.0[2]) + (self.0[1] + self.0[3])
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const f16) -> Self {
        // SAFETY: guaranteed by the caller.
        Plain(std::array::from_fn(|i| unsafe { *p.add(i) }.to_f32()))
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const bf16) -> Self {
        // SAFETY: guaranteed by the caller.
        Plain(std::array::from_fn(|i| unsafe { *p.add(i) }.to_f32()))
    }
    #[inline(always)]
    unsafe fn transpose(rows: &mut [Self; 16]) {
        let t = *rows;
        for (i, row) in rows.iter_mut().enumerate().take(4) {
            *row = Plain(std::array::from_fn(|j| t[j].0[i]));
        }
    }
}
