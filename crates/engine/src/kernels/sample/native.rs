//! The CPU implementation: one row at a time, with its chunks spread over the threads.

use std::cell::RefCell;

use lowrank_cpu::simd::{max, sum_by, vectorised};
use lowrank_cpu::tasks::{each_chunk, map_tasks};
use lowrank_cpu::threads::count;

use super::{EXP2, FARTHEST, LOG2_E, Sampling, Scalars, WORDS};
use crate::kernel::native::NativeLaunch;

/// Tokens per task.
const CHUNK: usize = 8 * 1024;
/// Bins of the first count, by the distance's highest digit: 16 per nat at temperature 1.
const BINS: usize = 4096;
const SHIFT: u32 = 20;

/// Buffers for a row in addition to its logits. The device's thread keeps them, since the system zeroes each new page.
#[derive(Default)]
struct Scratch {
    scores: Vec<f32>,
    distances: Vec<u32>,
    deciding: Vec<u32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

pub fn sample(l: &NativeLaunch, penalised: bool) {
    let Scalars { n } = l.scalars();
    let (logits, rows) = (l.read::<f32>(0), l.read::<u32>(1).as_chunks::<WORDS>().0);
    let (token, bad) = (l.write::<i32>(2), l.write::<i32>(3));
    let mut seen = penalised.then(|| l.write::<i32>(4));
    SCRATCH.with_borrow_mut(|scratch| {
        for (r, (logits, row)) in logits.chunks_exact(n).zip(rows).enumerate() {
            let (row, word) = Sampling::from_words(row);
            let [below, above] = row.penalty;
            let mut seen = seen.as_mut().map(|seen| &mut seen[r * n..][..n]);
            let mut scores = std::mem::take(&mut scratch.scores);
            let drawn = match &seen {
                Some(seen) => {
                    scores.resize(n, 0.0);
                    each_chunk(&mut scores, CHUNK, |at, s| {
                        let end = at + s.len();
                        penalise(s, &logits[at..end], &seen[at..end], below, above);
                    });
                    draw(&row, &scores, word, scratch)
                }
                None => draw(&row, logits, word, scratch),
            };
            scratch.scores = scores;
            (token[r], bad[r]) = match drawn {
                Ok(at) => (at as i32, -1),
                Err(at) => (if at < n { at as i32 } else { 0 }, at as i32),
            };
            if let Some(seen) = &mut seen {
                seen[token[r] as usize] = 1;
            }
        }
    });
}

/// Returns the results of `task` for each chunk of `x` with `size` elements.
fn map_chunks<T: Sync, R: Send + Default + Clone>(
    x: &[T],
    size: usize,
    task: impl Fn(&[T]) -> R + Sync,
) -> Vec<R> {
    map_tasks(x.len().div_ceil(size), |i| task(&x[i * size..((i + 1) * size).min(x.len())]))
}

/// Returns the token for `word`. If the row has none, returns as an error the index of its first NaN, or its length.
fn draw(row: &Sampling, scores: &[f32], word: u64, scratch: &mut Scratch) -> Result<usize, usize> {
    let n = scores.len();
    let (top, has_nan) = map_chunks(scores, CHUNK, find_extremes)
        .into_iter()
        .fold((f32::NEG_INFINITY, false), |a, b| (a.0.max(b.0), a.1 || b.1));
    if has_nan {
        return Err(scores.iter().position(|s| s.is_nan()).unwrap_or(n));
    }
    if top == f32::NEG_INFINITY {
        return Err(n);
    }
    let distances = &mut scratch.distances;
    distances.resize(n, 0);
    each_chunk(distances, CHUNK, |at, d| measure_distances(d, &scores[at..at + d.len()], top, row.steps));
    let distances = &distances[..];
    let mut limit = FARTHEST;
    if row.top_k > 0 && (row.top_k as usize) < n {
        limit = find_threshold(distances, limit, mark_kept, |_| row.top_k as u64, &mut scratch.deciding);
    }
    if row.top_p > 0 {
        let share = |all: u64| ((all as u128 * row.top_p as u128) >> 32).max(1) as u64;
        limit = limit.min(find_threshold(distances, limit, compute_weights, share, &mut scratch.deciding));
    }
    limit = limit.min(row.farthest);

    let sums = map_chunks(distances, CHUNK, |d| sum_kept_weights(d, limit));
    let mut left = ((sums.iter().sum::<u64>() as u128 * word as u128) >> 64) as u64;
    for (chunk, sum) in sums.iter().enumerate() {
        if left >= *sum {
            left -= sum;
            continue;
        }
        let start = chunk * CHUNK;
        for (i, d) in distances[start..].iter().enumerate() {
            let w = if *d <= limit { compute_weight(*d) as u64 } else { 0 };
            if left < w {
                return Ok(start + i);
            }
            left -= w;
        }
    }
    unreachable!("what is drawn lies below the sum of all, of which the likeliest has 2^31")
}

/// Computes the amounts of distances up to a limit; larger distances have 0.
type Amounts = fn(&[u32], u32, &mut [u32]);

/// Returns the least distance within which the amounts of distances up to `limit` reach `need` of their total, or
/// `FARTHEST` if they do not.
fn find_threshold(
    distances: &[u32],
    limit: u32,
    amounts: Amounts,
    need: impl Fn(u64) -> u64,
    deciding: &mut Vec<u32>,
) -> u32 {
    let count_bins = |chunk: &[u32]| {
        let mut bins = vec![0u64; BINS];
        let mut buffer = [0; 512];
        for d in chunk.chunks(buffer.len()) {
            let own = &mut buffer[..d.len()];
            amounts(d, limit, own);
            d.iter().zip(own).for_each(|(d, w)| bins[(*d >> SHIFT) as usize] += *w as u64);
        }
        bins
    };
    // One chunk per thread, each with separate bins.
    let size = distances.len().div_ceil(count()).max(CHUNK);
    let parts = map_chunks(distances, size, count_bins);
    let bins = |b: usize| parts.iter().map(|part| part[b]).sum::<u64>();
    let mut left = need((0..BINS).map(bins).sum());
    let mut deciding_bin = BINS;
    for b in 0..BINS {
        let sum = bins(b);
        if sum >= left {
            deciding_bin = b;
            break;
        }
        left -= sum;
    }
    deciding.clear();
    deciding.extend(distances.iter().filter(|d| **d <= limit && (**d >> SHIFT) as usize == deciding_bin));
    deciding.sort_unstable();
    for d in &*deciding {
        let mut w = [0];
        amounts(&[*d], limit, &mut w);
        if w[0] as u64 >= left {
            return *d;
        }
        left -= w[0] as u64;
    }
    FARTHEST
}

/// Returns 2³¹ · e^(−d · 2⁻²⁴), rounded down.
#[inline(always)]
fn compute_weight(d: u32) -> u32 {
    let high = |a: u32, b: u32| ((a as u64 * b as u64) >> 32) as u32;
    let e = d as u64 * LOG2_E as u64;
    let f = (e >> 23) as u32;
    let [c0, c1, c2, c3, c4, c5] = EXP2;
    let t = c4 - high(c5, f);
    let t = c3 - high(t, f);
    let t = c2 - high(t, f);
    let t = c1 - high(t, f);
    let t = c0 - high(t, f);
    let w = (1 << 31) - (high(t, f) >> 1);
    let n = (e >> 55) as u32;
    if n > 31 { 0 } else { w >> n }
}

vectorised! {
    /// Returns the maximum, and whether a score is NaN. Sums 0 · score for all: the sum is NaN if a score is NaN or
    /// infinite, and only then searches for NaN.
    fn find_extremes(scores: &[f32]) -> (f32, bool) {
        let has_nan = sum_by::<S>(scores, |s| s * 0.0).is_nan() && scores.iter().any(|s| s.is_nan());
        (max::<S>(scores), has_nan)
    }

    fn penalise(scores: &mut [f32], logits: &[f32], seen: &[i32], below: f32, above: f32) {
        for ((s, l), seen) in scores.iter_mut().zip(logits).zip(seen) {
            let factor = if *l < 0.0 { below } else { above };
            *s = if *seen == 0 { *l } else { l * factor };
        }
    }

    fn measure_distances(distances: &mut [u32], scores: &[f32], top: f32, steps: f32) {
        for (d, s) in distances.iter_mut().zip(scores) {
            let v = (top - s) * steps;
            // SAFETY: 0 ≤ v < 2³², since `top` is the largest score; comparison with NaN is false.
            let far = if v < 4_294_967_040.0 { unsafe { v.to_int_unchecked::<i64>() as u32 } } else { FARTHEST };
            *d = if *s == top { 0 } else { far };
        }
    }

    fn compute_weights(distances: &[u32], limit: u32, out: &mut [u32]) {
        out.iter_mut().zip(distances).for_each(|(w, d)| *w = if *d <= limit { compute_weight(*d) } else { 0 });
    }

    fn mark_kept(distances: &[u32], limit: u32, out: &mut [u32]) {
        out.iter_mut().zip(distances).for_each(|(w, d)| *w = (*d <= limit) as u32);
    }

    fn sum_kept_weights(distances: &[u32], limit: u32) -> u64 {
        distances.iter().map(|d| if *d <= limit { compute_weight(*d) as u64 } else { 0 }).sum()
    }
}
