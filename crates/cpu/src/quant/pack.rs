//! Quantisation of weights to blocks.
//!
//! Types of ggml have the bits of its reference, except q4_k for training, whose search is wider. nf4 follows its
//! paper: each element becomes the nearest value of the table, for the scale as stored.

mod round;
mod superblock;

use std::fmt;
use std::num::NonZero;
use std::ops::Range;

use half::f16;

use super::BlockType;
use super::nf4::{self, GROUP, HEAD, TABLE, decode_e4m3};

/// Writes a range of a weight's elements, from an index on, as f32.
pub type Read<'a> = dyn Fn(usize, &mut [f32]) + Sync + 'a;

/// Types to which weights are quantised for training.
pub const TRAINING_TYPES: [BlockType; 4] = [BlockType::Q8_0, BlockType::Q4_0, BlockType::Q4K, BlockType::Nf4];

/// Types that `pack_for_file` writes.
pub const FILE_TYPES: [BlockType; 8] = [
    BlockType::Q4_0,
    BlockType::Q4_1,
    BlockType::Q5_0,
    BlockType::Q5_1,
    BlockType::Q8_0,
    BlockType::Q4K,
    BlockType::Q5K,
    BlockType::Q6K,
];

/// Quantises a weight of `elements` to `kind`, one of `TRAINING_TYPES`. At most one block per thread exists in f32.
///
/// # Errors
/// If a value is not finite, or too large for a scale.
pub fn pack(kind: BlockType, elements: usize, read: &Read) -> Result<Vec<u8>, Unrepresentable> {
    let mut blocks = vec![0; kind.byte_size(elements)];
    let ok = match kind {
        BlockType::Q8_0 => quantise_blocks(kind, &mut blocks, read, round::pack_q8_0),
        BlockType::Q4_0 => quantise_blocks(kind, &mut blocks, read, round::pack_q4_0),
        BlockType::Q4K => quantise_blocks(kind, &mut blocks, read, superblock::pack_q4_k),
        BlockType::Nf4 => pack_nf4(&mut blocks, elements, read),
        other => unreachable!("nothing is quantised to {other}"),
    };
    finish(kind, blocks, ok)
}

/// Quantises a weight for a file to `kind`, one of `FILE_TYPES`, with the bits of ggml's reference.
///
/// # Errors
/// As for `pack`.
pub fn pack_for_file(kind: BlockType, elements: usize, read: &Read) -> Result<Vec<u8>, Unrepresentable> {
    let make = match kind {
        BlockType::Q4_0 => round::pack_q4_0,
        BlockType::Q4_1 => round::pack_q4_1,
        BlockType::Q5_0 => round::pack_q5_0,
        BlockType::Q5_1 => round::pack_q5_1,
        BlockType::Q8_0 => round::pack_q8_0,
        BlockType::Q4K => superblock::pack_q4_k_as_ggml,
        BlockType::Q5K => superblock::pack_q5_k,
        BlockType::Q6K => superblock::pack_q6_k,
        other => unreachable!("{other} is not written"),
    };
    let mut blocks = vec![0; kind.byte_size(elements)];
    let ok = quantise_blocks(kind, &mut blocks, read, make);
    finish(kind, blocks, ok)
}

fn finish(kind: BlockType, blocks: Vec<u8>, ok: bool) -> Result<Vec<u8>, Unrepresentable> {
    if ok { Ok(blocks) } else { Err(Unrepresentable(kind)) }
}

/// The error of a weight with a value that its block type cannot represent.
#[derive(Clone, Copy, Debug)]
pub struct Unrepresentable(BlockType);

impl fmt::Display for Unrepresentable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it holds values that are not finite, or larger than a scale of {} can be", self.0)
    }
}

impl std::error::Error for Unrepresentable {}

/// Calls `make` with each block of `size` bytes and its elements, on all processors. Returns whether all calls
/// succeeded.
fn quantise_blocks(
    kind: BlockType,
    blocks: &mut [u8],
    read: &Read,
    make: fn(&[f32], &mut [u8]) -> bool,
) -> bool {
    let (size, elements) = (kind.bytes(), kind.elements());
    run_on_threads(blocks, size, |from, blocks| {
        let mut values = [0.0; 256];
        let values = &mut values[..elements];
        blocks.chunks_mut(size).enumerate().all(|(i, block)| {
            read((from + i) * elements, values);
            make(values, block)
        })
    })
}

/// Calls `task` with groups of units of `size` and the index of the first, on all processors. Returns whether all
/// succeeded.
fn run_on_threads<T: Send>(
    all: &mut [T],
    size: usize,
    task: impl Fn(usize, &mut [T]) -> bool + Sync,
) -> bool {
    /// Bytes that are worth a thread.
    const MIN_THREAD_BYTES: usize = 64 * 1024;
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let share = (all.len() / size).div_ceil(threads).max(MIN_THREAD_BYTES / size.max(1));
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

/// A scale as f16; `None` if it is out of range.
fn encode_scale(scale: f32) -> Option<[u8; 2]> {
    let half = f16::from_f32(scale);
    half.is_finite().then(|| half.to_le_bytes())
}

/// 1 / scale, or 0 for 0.
fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}

fn is_finite(x: &[f32]) -> bool {
    x.iter().all(|v| v.is_finite())
}

/// The nearest float of 8 bits (E4M3), ties to even; values beyond the largest become the largest.
pub(super) fn encode_e4m3(v: f32) -> u8 {
    let magnitude = v.abs().min(448.0);
    let code = if magnitude < 1.0 / 64.0 {
        // Multiples of 2^-9, the smallest positive value.
        (magnitude * 512.0).round_ties_even() as u32
    } else {
        let bits = (magnitude * f32::from_bits((127 - 120) << 23)).to_bits();
        (bits + 0x7ffff + (bits >> 20 & 1)) >> 20
    };
    code as u8 | ((v.to_bits() >> 24) as u8 & 128)
}

/// The index of the table's value nearest to v; the lower one for a tie.
pub(super) fn find_nearest_code(v: f32) -> u8 {
    TABLE.windows(2).filter(|pair| v > (pair[0] + pair[1]) / 2.0).count() as u8
}

fn pack_nf4(blocks: &mut [u8], elements: usize, read: &Read) -> bool {
    const ELEMENTS: usize = nf4::ELEMENTS;
    let mut scales = vec![0f32; elements / ELEMENTS];
    let ok = run_on_threads(&mut scales, 1, |from, scales| {
        let mut values = [0.0; ELEMENTS];
        scales.iter_mut().enumerate().all(|(i, scale)| {
            read((from + i) * ELEMENTS, &mut values);
            *scale = values.iter().fold(0f32, |m, v| m.max(v.abs()));
            is_finite(&values)
        })
    });
    let mean = (scales.iter().map(|v| *v as f64).sum::<f64>() / scales.len().max(1) as f64) as f32;
    let group = |of: usize| -> Range<usize> { of * GROUP..((of + 1) * GROUP).min(scales.len()) };
    ok && run_on_threads(blocks, HEAD + GROUP * nf4::BYTES, |from, groups| {
        let mut values = [0.0; ELEMENTS];
        for (i, bytes) in groups.chunks_mut(HEAD + GROUP * nf4::BYTES).enumerate() {
            let of = group(from + i);
            let (head, rest) = bytes.split_at_mut(HEAD);
            let far = scales[of.clone()].iter().fold(0f32, |m, scale| m.max((scale - mean).abs()));
            // Rounds up to 16 significant bits.
            let step = f32::from_bits(((far / 448.0).to_bits() + 0xff) & !0xff);
            head[..4].copy_from_slice(&step.to_le_bytes());
            head[4..].copy_from_slice(&mean.to_le_bytes());
            for (block, bytes) in of.zip(rest.chunks_mut(nf4::BYTES)) {
                bytes[0] = encode_e4m3((scales[block] - mean) * inverse(step));
                let scale = decode_e4m3(bytes[0]) * step + mean;
                let by = inverse(scale);
                read(block * ELEMENTS, &mut values);
                for (bytes, values) in bytes[1..].chunks_mut(16).zip(values.chunks(32)) {
                    for (i, byte) in bytes.iter_mut().enumerate() {
                        *byte =
                            find_nearest_code(values[i] * by) | find_nearest_code(values[16 + i] * by) << 4;
                    }
                }
            }
        }
        true
    })
}
