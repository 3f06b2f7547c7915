//! Quantising: blocks of what a weight holds in floats.
//!
//! q8_0 and q4_0 have the bits of ggml's reference. q4_k looks for scale and minimum of each run by least squares over
//! several roundings, and once more among what 6 bits hold. nf4 is as its paper has it, each element the nearest in the
//! table by the scale that is read back.

use std::num::NonZero;
use std::ops::Range;

use half::f16;

use super::BlockType;
use super::nf4::{self, GROUP, HEAD, TABLE, e4m3};
use crate::error::Result;
use crate::fail;

/// Writes elements of a weight, from the given one on, as f32.
pub type Read<'a> = dyn Fn(usize, &mut [f32]) + Sync + 'a;

/// Types that weights are quantised to.
pub const MADE: [BlockType; 4] = [BlockType::Q8_0, BlockType::Q4_0, BlockType::Q4K, BlockType::Nf4];

/// A weight of `elements` in blocks of `kind`, one of `MADE`. No more of it is held in f32 than a block a thread.
///
/// # Errors
/// `ERR_DTYPE` where a value is not finite, or larger than a scale can be.
pub fn pack(kind: BlockType, elements: usize, read: &Read) -> Result<Vec<u8>> {
    let mut blocks = vec![0; kind.bytes_of(elements)];
    let ok = match kind {
        BlockType::Q8_0 => each(kind, &mut blocks, read, q8_0),
        BlockType::Q4_0 => each(kind, &mut blocks, read, q4_0),
        BlockType::Q4K => each(kind, &mut blocks, read, q4_k),
        BlockType::Nf4 => normal_float(&mut blocks, elements, read),
        other => unreachable!("nothing is quantised to {other}"),
    };
    if !ok {
        fail!(Dtype, "it holds values that are not finite, or larger than a scale of {kind} can be");
    }
    Ok(blocks)
}

/// Calls `make` with every block of `size` bytes and the elements that it is of, on all processors: whether all went
/// well.
fn each(kind: BlockType, blocks: &mut [u8], read: &Read, make: fn(&[f32], &mut [u8]) -> bool) -> bool {
    let (size, elements) = (kind.bytes(), kind.elements());
    on_threads(blocks, size, |from, blocks| {
        let mut values = [0.0; 256];
        let values = &mut values[..elements];
        blocks.chunks_mut(size).enumerate().all(|(i, block)| {
            read((from + i) * elements, values);
            make(values, block)
        })
    })
}

/// Calls `task` with some units of `size` of `all` and the number of the first: whether all calls went well.
fn on_threads<T: Send>(all: &mut [T], size: usize, task: impl Fn(usize, &mut [T]) -> bool + Sync) -> bool {
    /// Bytes that are worth a thread.
    const SOME: usize = 64 * 1024;
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let share = (all.len() / size).div_ceil(threads).max(SOME / size.max(1));
    std::thread::scope(|scope| {
        let tasks: Vec<_> = all
            .chunks_mut(share * size)
            .enumerate()
            .map(|(i, part)| {
                scope.spawn({
                    let task = &task;
                    move || task(i * share, part)
                })
            })
            .collect();
        tasks.into_iter().all(|task| task.join().unwrap_or(false))
    })
}

/// A scale as f16 holds it; None where it doesn't.
fn stored(scale: f32) -> Option<[u8; 2]> {
    let half = f16::from_f32(scale);
    half.is_finite().then(|| half.to_le_bytes())
}

/// 1 / scale, 0 of none.
fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}

fn is_finite(x: &[f32]) -> bool {
    x.iter().all(|v| v.is_finite())
}

fn q8_0(x: &[f32], block: &mut [u8]) -> bool {
    let largest = x.iter().fold(0f32, |m, v| m.max(v.abs()));
    let d = largest / 127.0;
    let by = inverse(d);
    let Some(scale) = stored(d).filter(|_| is_finite(x)) else { return false };
    block[..2].copy_from_slice(&scale);
    for (code, v) in block[2..].iter_mut().zip(x) {
        // Halves go away from 0.
        *code = (v * by).round() as i8 as u8;
    }
    true
}

fn q4_0(x: &[f32], block: &mut [u8]) -> bool {
    // The first of the largest by magnitude becomes −8.
    let farthest = x.iter().fold(x[0], |m, v| if v.abs() > m.abs() { *v } else { m });
    let d = farthest / -8.0;
    let by = inverse(d);
    let Some(scale) = stored(d).filter(|_| is_finite(x)) else { return false };
    block[..2].copy_from_slice(&scale);
    let code = |v: f32| ((v * by + 8.5) as u8).min(15);
    for (i, byte) in block[2..].iter_mut().enumerate() {
        *byte = code(x[i]) | code(x[16 + i]) << 4;
    }
    true
}

/// Codes of a run of `Q4K`, and the sum of the squares of what is off.
fn codes(x: &[f32], scale: f32, minimum: f32) -> ([u8; 32], f32) {
    let by = inverse(scale);
    let mut error = 0.0;
    let codes = std::array::from_fn(|i| {
        let code = ((x[i] + minimum) * by).round().clamp(0.0, 15.0);
        let off = scale * code - minimum - x[i];
        error += off * off;
        code as u8
    });
    (codes, error)
}

/// Scale and minimum, neither below 0, of x ≈ scale · code − minimum.
fn fitted(x: &[f32]) -> [f32; 2] {
    let low = x.iter().fold(0f32, |m, v| m.min(*v));
    let high = x.iter().fold(low, |m, v| m.max(*v));
    let mut best = [(high - low) / 15.0, -low];
    let mut least = codes(x, best[0], best[1]).1;
    for step in 0..=20 {
        // Codes by a scale about the first, then the line through them.
        let scale = (high - low) / (14.0 + step as f32 / 10.0);
        let (codes_of, _) = codes(x, scale, -low);
        let q = codes_of.map(|code| code as f32);
        let [n, sq, sqq] = [32.0, q.iter().sum::<f32>(), q.iter().map(|q| q * q).sum()];
        let [sx, sxq] = [x.iter().sum::<f32>(), x.iter().zip(&q).map(|(x, q)| x * q).sum()];
        let determinant = n * sqq - sq * sq;
        if determinant <= 0.0 {
            continue;
        }
        let mut line = [(n * sxq - sq * sx) / determinant, (sq * sxq - sqq * sx) / determinant];
        if line[1] < 0.0 {
            line = [sxq / sqq, 0.0];
        }
        let error = codes(x, line[0], line[1]).1;
        if line[0] > 0.0 && error < least {
            (best, least) = (line, error);
        }
    }
    best
}

fn q4_k(x: &[f32], block: &mut [u8]) -> bool {
    if !is_finite(x) {
        return false;
    }
    let runs: Vec<&[f32]> = x.chunks(32).collect();
    let fits: Vec<[f32; 2]> = runs.iter().map(|run| fitted(run)).collect();
    // What one of 6 bits stands for, of scales and of minima.
    let [d, e] = [0, 1].map(|i| fits.iter().fold(0f32, |m, fit| m.max(fit[i])) / 63.0);
    let (Some(d_bytes), Some(e_bytes)) = (stored(d), stored(e)) else { return false };
    let [d, e] = [d_bytes, e_bytes].map(|bytes| f16::from_le_bytes(bytes).to_f32());
    let (head, codes_to) = block.split_at_mut(16);
    head.fill(0);
    head[..2].copy_from_slice(&d_bytes);
    head[2..4].copy_from_slice(&e_bytes);
    for (i, (run, [scale, minimum])) in runs.iter().zip(fits).enumerate() {
        let near = |v: f32| {
            let v = v.round().clamp(0.0, 63.0) as u8;
            v.saturating_sub(1)..=(v + 1).min(63)
        };
        let mut best = None;
        for s in near(scale * inverse(d)) {
            for m in near(minimum * inverse(e)) {
                let (codes, error) = codes(run, d * s as f32, e * m as f32);
                if best.is_none_or(|(_, _, _, least)| error < least) {
                    best = Some((s, m, codes, error));
                }
            }
        }
        let (s, m, codes, _) = best.expect("some are near");
        let scales = &mut head[4..];
        if i < 4 {
            scales[i] |= s;
            scales[4 + i] |= m;
        } else {
            scales[4 + i] = s & 15 | (m & 15) << 4;
            scales[i - 4] |= s >> 4 << 6;
            scales[i] |= m >> 4 << 6;
        }
        for (byte, code) in codes_to[i / 2 * 32..][..32].iter_mut().zip(codes) {
            *byte = if i % 2 == 0 { code } else { *byte | code << 4 };
        }
    }
    true
}

/// The nearest float of 8 bits, E4M3, ties to even, and the largest beyond it.
pub(super) fn to_e4m3(v: f32) -> u8 {
    let magnitude = v.abs().min(448.0);
    let code = if magnitude < 1.0 / 64.0 {
        // Multiples of 2^-9, the smallest that it has.
        (magnitude * 512.0).round_ties_even() as u32
    } else {
        let bits = (magnitude * f32::from_bits((127 - 120) << 23)).to_bits();
        (bits + 0x7ffff + (bits >> 20 & 1)) >> 20
    };
    code as u8 | ((v.to_bits() >> 24) as u8 & 128)
}

/// The place in the table that is nearest to v, of two as near the lower.
pub(super) fn nearest(v: f32) -> u8 {
    TABLE.windows(2).filter(|pair| v > (pair[0] + pair[1]) / 2.0).count() as u8
}

fn normal_float(blocks: &mut [u8], elements: usize, read: &Read) -> bool {
    const ELEMENTS: usize = nf4::ELEMENTS;
    let mut scales = vec![0f32; elements / ELEMENTS];
    let ok = on_threads(&mut scales, 1, |from, scales| {
        let mut values = [0.0; ELEMENTS];
        scales.iter_mut().enumerate().all(|(i, scale)| {
            read((from + i) * ELEMENTS, &mut values);
            *scale = values.iter().fold(0f32, |m, v| m.max(v.abs()));
            is_finite(&values)
        })
    });
    let mean = (scales.iter().map(|v| *v as f64).sum::<f64>() / scales.len().max(1) as f64) as f32;
    let group = |of: usize| -> Range<usize> { of * GROUP..((of + 1) * GROUP).min(scales.len()) };
    ok && on_threads(blocks, HEAD + GROUP * nf4::BYTES, |from, groups| {
        let mut values = [0.0; ELEMENTS];
        for (i, bytes) in groups.chunks_mut(HEAD + GROUP * nf4::BYTES).enumerate() {
            let of = group(from + i);
            let (head, rest) = bytes.split_at_mut(HEAD);
            let far = scales[of.clone()].iter().fold(0f32, |m, scale| m.max((scale - mean).abs()));
            // Upwards to 16 significant bits.
            let step = f32::from_bits(((far / 448.0).to_bits() + 0xff) & !0xff);
            head[..4].copy_from_slice(&step.to_le_bytes());
            head[4..].copy_from_slice(&mean.to_le_bytes());
            for (block, bytes) in of.zip(rest.chunks_mut(nf4::BYTES)) {
                bytes[0] = to_e4m3((scales[block] - mean) * inverse(step));
                let scale = e4m3(bytes[0]) * step + mean;
                let by = inverse(scale);
                read(block * ELEMENTS, &mut values);
                for (bytes, values) in bytes[1..].chunks_mut(16).zip(values.chunks(32)) {
                    for (i, byte) in bytes.iter_mut().enumerate() {
                        *byte = nearest(values[i] * by) | nearest(values[16 + i] * by) << 4;
                    }
                }
            }
        }
        true
    })
}
