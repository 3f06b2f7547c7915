//! Arrangements of a row for codes.
//!
//! In f32, a code is converted where it is in its word; the resulting power of two is divided out of the row's elements
//! beforehand. So a code takes a mask, a conversion and a multiply-add, and no movement between lanes: 25 instructions
//! for the 8 codes of a word.
//!
//! In bytes, the row consists of integers, x = X·2ᵉ with one e for all and |X| < 2²³, each of three bytes, X = 2¹⁶·a +
//! 2⁸·b + c with a, b and c from −128 to 127: 11 instructions where four byte products and their sum are one. The error
//! of an element is at most 1.01 · 2⁻²³ of the row's largest, about one ulp of it; the sum of the products in a lane is
//! exact and is rounded once.

use super::{
    Coded, count_chunk_elements, count_chunk_floats, count_chunk_step_floats, count_step_floats, count_steps,
    inverse_power,
};
use crate::simd::{Isa, Lanes, Words};

/// An arrangement of a row.
pub trait Row<S: Isa> {
    /// f32 before the first chunk.
    const HEAD: usize;
    /// Vectors per half of a step.
    const HALF: usize;

    /// Arranges `k` elements of a row for blocks B.
    ///
    /// # Safety
    /// As for `Arrangement::arrange`.
    unsafe fn arrange<B: Coded>(k: usize, row: *const f32, to: *mut f32);

    /// The sum of the products of words of eight nibbles: low nibbles by the first half of a step, high ones by the
    /// second.
    ///
    /// # Safety
    /// As for `Coded::add_chunk`, of a step.
    unsafe fn multiply_nibbles(words: S::Words, x: *const f32) -> S::V;

    /// As for `multiply_nibbles`, but separate sums for low and high nibbles.
    ///
    /// # Safety
    /// As for `multiply_nibbles`.
    unsafe fn multiply_nibbles_separately(words: S::Words, x: *const f32) -> [S::V; 2];

    /// The products of words of four bytes, each at most 63, by the step's half `half`.
    ///
    /// # Safety
    /// As for `multiply_nibbles`.
    unsafe fn multiply_bytes(words: S::Words, x: *const f32, half: usize) -> S::V;

    /// Scales a column's sum; `head` is the start of the arranged row.
    ///
    /// # Safety
    /// `head` is readable.
    unsafe fn finish(sum: f32, head: *const f32) -> f32;
}

/// Elements that are arranged together: the bytes of four words.
const GROUP: usize = 16;

/// Writes a chunk's sums; `sum` computes the sum of `GROUP` elements from an index on.
///
/// # Safety
/// `to` has room for them.
#[inline(always)]
unsafe fn write_sums<S: Isa, B: Coded>(to: *mut f32, sum: impl Fn(usize) -> f32) {
    let elements = const { count_chunk_elements::<S, B>() };
    if B::SUMS > 0 {
        // SAFETY: guaranteed by the caller.
        let sums = unsafe { std::slice::from_raw_parts_mut(to, elements / B::ELEMENTS * B::SUMS) };
        sums.fill(0.0);
        for at in (0..elements).step_by(GROUP) {
            sums[B::sum_index(at)] += sum(at) * B::OF_SUMS;
        }
    }
}

/// Each element in f32.
pub struct InF32;

impl InF32 {
    /// The products of low nibbles and of high ones.
    #[inline(always)]
    unsafe fn multiply_halves<S: Isa>(words: S::Words, x: *const f32) -> [S::V; 2] {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let [mut low, mut high] = [S::zero(); 2];
            for (pair, words) in [words, words.shr::<16>()].into_iter().enumerate() {
                let x = |half: usize, byte: usize| S::V::load(x.add((4 * half + 2 * pair + byte) * S::WIDTH));
                low = words.and(0xf).to_f32().fma(x(0, 0), low);
                high = words.and(0xf0).to_f32().fma(x(1, 0), high);
                low = words.and(0xf00).to_f32().fma(x(0, 1), low);
                high = words.and(0xf000).to_f32().fma(x(1, 1), high);
            }
            [low, high]
        }
    }
}

impl<S: Isa> Row<S> for InF32 {
    const HEAD: usize = 0;
    const HALF: usize = 4;

    #[inline(always)]
    unsafe fn arrange<B: Coded>(k: usize, row: *const f32, to: *mut f32) {
        let (lanes, steps) = (S::WIDTH, const { count_steps::<S, B>() });
        let elements = const { count_chunk_elements::<S, B>() };
        for chunk in 0..k.div_ceil(elements) {
            // SAFETY: guaranteed by the caller; nothing is read past the row's end.
            unsafe {
                let (row, k) = (row.add(chunk * elements), k - chunk * elements);
                let to = to.add(chunk * const { count_chunk_floats::<S, InF32, B>() });
                let x = |at: usize| if at < k { *row.add(at) } else { 0.0 };
                for step in 0..steps {
                    let to = to.add(step * const { count_step_floats::<S, InF32>() });
                    for (half, fields) in B::OF_FIELDS.iter().enumerate() {
                        for (byte, field) in fields.iter().enumerate() {
                            for lane in 0..lanes {
                                let x = x(B::find_element(lanes, step, lane, half, byte));
                                *to.add((4 * half + byte) * lanes + lane) = x * field;
                            }
                        }
                    }
                }
                let sums = to.add(const { count_chunk_step_floats::<S, InF32, B>() });
                write_sums::<S, B>(sums, |at| (at..at + GROUP).map(x).sum());
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply_nibbles(words: S::Words, x: *const f32) -> S::V {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let [low, high] = InF32::multiply_halves::<S>(words, x);
            low.add(high)
        }
    }

    #[inline(always)]
    unsafe fn multiply_nibbles_separately(words: S::Words, x: *const f32) -> [S::V; 2] {
        // SAFETY: guaranteed by the caller.
        unsafe { InF32::multiply_halves::<S>(words, x) }
    }

    #[inline(always)]
    unsafe fn multiply_bytes(words: S::Words, x: *const f32, half: usize) -> S::V {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let x = |byte: usize| S::V::load(x.add((4 * half + byte) * S::WIDTH));
            let low = words.and(0x3f).to_f32().mul(x(0));
            let low = words.and(0x3f00).to_f32().fma(x(1), low);
            let high = words.and(0x3f_0000).to_f32().mul(x(2));
            words.shr::<24>().to_f32().fma(x(3), high).add(low)
        }
    }

    #[inline(always)]
    unsafe fn finish(sum: f32, _head: *const f32) -> f32 {
        sum
    }
}

/// Each element in three bytes. The head begins with the factor that scales sums back; if an element is not finite, all
/// products are NaN.
pub struct InBytes;

/// Bytes per element, the most significant first.
const BYTES: usize = 3;
/// f32 of the head: a cache line, which keeps the vectors aligned.
const HEAD: usize = 16;

/// A power of two and its inverse: the first scales the row's largest magnitude to at least 2²², within the range of
/// three bytes, −128·65,793 to 127·65,793. `None` if an element is not finite.
fn find_scale(row: &[f32]) -> Option<[f32; 2]> {
    let most = row.iter().fold(0, |most, x| most.max(x.to_bits() & 0x7fff_ffff));
    if most >= f32::INFINITY.to_bits() {
        return None;
    }
    // Magnitudes within 2⁻⁷ of the next power of two count as that power. Both powers are normal f32.
    let exponent = (((most + (1 << 17)) >> 23) as i32 - 127).max(-104);
    Some([inverse_power(exponent - 22), inverse_power(22 - exponent)])
}

impl InBytes {
    /// The products of words of bytes by their halves of the row.
    #[inline(always)]
    unsafe fn multiply_words<S: Isa, const COUNT: usize>(
        words: [(S::Words, usize); COUNT],
        x: *const f32,
    ) -> S::V {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let mut sums = S::Words::zero();
            for byte in 0..BYTES {
                sums = sums.shl::<8>();
                for (words, half) in words {
                    let x = S::Words::load(x.add((half * BYTES + byte) * S::WIDTH).cast());
                    sums = S::add_bytes(words, x, sums);
                }
            }
            sums.to_f32()
        }
    }

    /// The low and the high nibbles of words, with their halves.
    #[inline(always)]
    unsafe fn split_halves<S: Isa>(words: S::Words) -> [(S::Words, usize); 2] {
        // SAFETY: guaranteed by the caller.
        unsafe { [(words.and(0x0f0f_0f0f), 0), (words.shr::<4>().and(0x0f0f_0f0f), 1)] }
    }
}

impl<S: Isa> Row<S> for InBytes {
    const HEAD: usize = HEAD;
    const HALF: usize = BYTES;

    #[inline(always)]
    unsafe fn arrange<B: Coded>(k: usize, row: *const f32, to: *mut f32) {
        let (lanes, steps) = (S::WIDTH, const { count_steps::<S, B>() });
        let elements = const { count_chunk_elements::<S, B>() };
        let floats = const { count_chunk_floats::<S, InBytes, B>() };
        let chunks = k.div_ceil(elements);
        // SAFETY: guaranteed by the caller; reads end at the row's end, a group of 16 elements at the latest.
        unsafe {
            let Some([scale, back]) = find_scale(std::slice::from_raw_parts(row, k)) else {
                to.add(HEAD).write_bytes(0, chunks * floats);
                return to.write(f32::NAN);
            };
            to.write(back);
            for chunk in 0..chunks {
                let (row, k) = (row.add(chunk * elements), k - chunk * elements);
                let to = to.add(HEAD + chunk * floats);
                let x = |at: usize| {
                    let x = match at < k {
                        true => row.add(at).cast::<[f32; GROUP]>().read(),
                        false => [0.0; GROUP],
                    };
                    x.map(|x| (x * scale).round_ties_even().to_int_unchecked::<i32>())
                };
                for step in 0..steps {
                    let to = to.add(step * const { count_step_floats::<S, InBytes>() });
                    for half in 0..2 {
                        for lane in (0..lanes).step_by(GROUP / 4) {
                            let x = x(B::first_element(lanes, step, lane, half));
                            for byte in 0..BYTES {
                                // With 128 added to each byte, X consists of unsigned bytes.
                                let of = |x: i32| ((x + 0x80_8080) >> (16 - 8 * byte)) as u8 ^ 0x80;
                                let to = to.add((half * BYTES + byte) * lanes + lane);
                                to.cast::<[u8; GROUP]>().write(x.map(of));
                            }
                        }
                    }
                }
                let sums = to.add(const { count_chunk_step_floats::<S, InBytes, B>() });
                write_sums::<S, B>(sums, |at| x(at).iter().sum::<i32>() as f32);
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply_nibbles(words: S::Words, x: *const f32) -> S::V {
        // SAFETY: guaranteed by the caller.
        unsafe { InBytes::multiply_words::<S, 2>(InBytes::split_halves::<S>(words), x) }
    }

    #[inline(always)]
    unsafe fn multiply_nibbles_separately(words: S::Words, x: *const f32) -> [S::V; 2] {
        // SAFETY: guaranteed by the caller.
        unsafe { InBytes::split_halves::<S>(words).map(|half| InBytes::multiply_words::<S, 1>([half], x)) }
    }

    #[inline(always)]
    unsafe fn multiply_bytes(words: S::Words, x: *const f32, half: usize) -> S::V {
        // SAFETY: guaranteed by the caller.
        unsafe { InBytes::multiply_words::<S, 1>([(words, half)], x) }
    }

    #[inline(always)]
    unsafe fn finish(sum: f32, head: *const f32) -> f32 {
        // SAFETY: guaranteed by the caller.
        sum * unsafe { *head }
    }
}
