//! Superblocks of 256 elements, whose runs have quantised scales.
//!
//! ggml's q4_k, q5_k and q6_k have the bits of its reference (make_qkx2_quants, make_qx_quants and
//! quantize_row_q*_K_ref of ggml-quants.c). q4_k for training searches the scale and the minimum of each run by least
//! squares over several roundings, and again among the values that 6 bits can hold; its squared error is 4% smaller.

use half::f16;

use super::{encode_scale, inverse, is_finite};

/// Magnitudes below this count as 0.
const TINY: f32 = 1e-15;

/// Writes the scale and the minimum of run `i`, 6 bits each. The low six bits of a byte belong to one of the first four
/// runs, the upper two bits to one of the last four.
fn write_run_scale(scales: &mut [u8], i: usize, scale: u8, minimum: u8) {
    if i < 4 {
        scales[i] |= scale;
        scales[4 + i] |= minimum;
    } else {
        scales[4 + i] = scale & 15 | (minimum & 15) << 4;
        scales[i - 4] |= scale >> 4 << 6;
        scales[i] |= minimum >> 4 << 6;
    }
}

/// The codes of a run of `Q4K`, and the sum of the squared errors.
fn quantise_run(x: &[f32], scale: f32, minimum: f32) -> ([u8; 32], f32) {
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

/// The scale and the minimum, both at least 0, for x ≈ scale · code − minimum.
fn fit_range(x: &[f32]) -> [f32; 2] {
    let low = x.iter().fold(0f32, |m, v| m.min(*v));
    let high = x.iter().fold(low, |m, v| m.max(*v));
    let mut best = [(high - low) / 15.0, -low];
    let mut least = quantise_run(x, best[0], best[1]).1;
    for step in 0..=20 {
        // Codes for a scale near the first, then the least-squares line through them.
        let scale = (high - low) / (14.0 + step as f32 / 10.0);
        let (codes_of, _) = quantise_run(x, scale, -low);
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
        let error = quantise_run(x, line[0], line[1]).1;
        if line[0] > 0.0 && error < least {
            (best, least) = (line, error);
        }
    }
    best
}

pub(super) fn pack_q4_k(x: &[f32], block: &mut [u8]) -> bool {
    if !is_finite(x) {
        return false;
    }
    let runs: Vec<&[f32]> = x.chunks(32).collect();
    let fits: Vec<[f32; 2]> = runs.iter().map(|run| fit_range(run)).collect();
    // The step of a 6-bit value, for scales and for minima.
    let [d, e] = [0, 1].map(|i| fits.iter().fold(0f32, |m, fit| m.max(fit[i])) / 63.0);
    let (Some(d_bytes), Some(e_bytes)) = (encode_scale(d), encode_scale(e)) else { return false };
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
                let (codes, error) = quantise_run(run, d * s as f32, e * m as f32);
                if best.is_none_or(|(_, _, _, least)| error < least) {
                    best = Some((s, m, codes, error));
                }
            }
        }
        let (s, m, codes, _) = best.expect("some are near");
        write_run_scale(&mut head[4..], i, s, m);
        for (byte, code) in codes_to[i / 2 * 32..][..32].iter_mut().zip(codes) {
            *byte = if i % 2 == 0 { code } else { *byte | code << 4 };
        }
    }
    true
}

/// The nearest code from 0 to `most`.
fn round_code(v: f32, most: f32) -> f32 {
    v.round_ties_even().clamp(0.0, most)
}

/// The search for the scale and the minimum of a run.
struct Search {
    /// The largest code.
    most: f32,
    /// The offset of the first rounding to the largest code; each further rounding adds 0.1.
    first: f32,
    steps: usize,
}

const SEARCH_4_BITS: Search = Search { most: 15.0, first: -1.0, steps: 20 };
const SEARCH_5_BITS: Search = Search { most: 31.0, first: -0.5, steps: 15 };

/// The codes of a run with its scale and minimum, x ≈ scale · code − minimum, by weighted least squares over roundings
/// with several scales. Each rounding starts from the best minimum so far.
fn fit_weighted(x: &[f32], search: &Search) -> ([f32; 32], f32, f32) {
    let most = search.most;
    let squares = x.iter().fold(0f32, |sum, v| sum + v * v);
    let mean = (squares / 32.0).sqrt();
    let weight = |v: f32| mean + v.abs();
    let low = x.iter().fold(f32::INFINITY, |m, v| m.min(*v));
    let high = x.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    let [sum_w, sum_x] = x.iter().fold([0f32; 2], |[w, wx], v| [w + weight(*v), wx + weight(*v) * v]);
    let mut minimum = low.min(0.0);
    if high == minimum {
        return ([0.0; 32], 0.0, -minimum);
    }
    let codes_by = |by: f32, minimum: f32| -> [f32; 32] {
        std::array::from_fn(|i| round_code(by * (x[i] - minimum), most))
    };
    let error = |codes: &[f32; 32], scale: f32, minimum: f32| {
        codes.iter().zip(x).fold(0f32, |sum, (code, v)| {
            let off = scale * code + minimum - v;
            sum + weight(*v) * (off * off)
        })
    };
    let by = most / (high - minimum);
    let mut scale = 1.0 / by;
    let mut best = codes_by(by, minimum);
    let mut least = error(&best, scale, minimum);
    for step in 0..=search.steps {
        let codes = codes_by((search.first + 0.1 * step as f32 + most) / (high - minimum), minimum);
        let [l, ll, xl] = codes.iter().zip(x).fold([0f32; 3], |[l, ll, xl], (code, v)| {
            let w = weight(*v);
            [l + w * code, ll + w * code * code, xl + w * code * v]
        });
        let determinant = sum_w * ll - l * l;
        if determinant <= 0.0 {
            continue;
        }
        let mut line = [(sum_w * xl - sum_x * l) / determinant, (ll * sum_x - l * xl) / determinant];
        if line[1] > 0.0 {
            line = [xl / ll, 0.0];
        }
        let error = error(&codes, line[0], line[1]);
        if error < least {
            (best, least) = (codes, error);
            [scale, minimum] = line;
        }
    }
    (best, scale, -minimum)
}

/// Writes the scales and minima of 8 runs of 32 to the first 16 bytes of a block. Returns the codes of each run.
fn fit_runs(x: &[f32], search: &Search, head: &mut [u8]) -> Option<Vec<[u8; 32]>> {
    if !is_finite(x) {
        return None;
    }
    let fits: Vec<_> = x.chunks(32).map(|run| fit_weighted(run, search)).collect();
    let scale = fits.iter().fold(0f32, |m, fit| m.max(fit.1));
    let minimum = fits.iter().fold(0f32, |m, fit| m.max(fit.2));
    let (d, e) = (encode_scale(scale / 63.0)?, encode_scale(minimum / 63.0)?);
    head.fill(0);
    head[..2].copy_from_slice(&d);
    head[2..4].copy_from_slice(&e);
    let [by_scale, by_minimum] = [scale, minimum].map(|most| if most > 0.0 { 63.0 / most } else { 0.0 });
    let [d, e] = [d, e].map(|bytes| f16::from_le_bytes(bytes).to_f32());
    let runs = x.chunks(32).zip(fits).enumerate().map(|(i, (run, (mut codes, scale, minimum)))| {
        let [s, m] = [by_scale * scale, by_minimum * minimum].map(|v| round_code(v, 63.0) as u8);
        write_run_scale(&mut head[4..], i, s, m);
        let (scale, minimum) = (d * s as f32, e * m as f32);
        if scale != 0.0 {
            codes = std::array::from_fn(|i| round_code((run[i] + minimum) / scale, search.most));
        }
        codes.map(|code| code as u8)
    });
    Some(runs.collect())
}

/// `pack_q4_k` with ggml's bits.
pub(super) fn pack_q4_k_as_ggml(x: &[f32], block: &mut [u8]) -> bool {
    let (head, low) = block.split_at_mut(16);
    let Some(runs) = fit_runs(x, &SEARCH_4_BITS, head) else { return false };
    low.fill(0);
    for (i, codes) in runs.into_iter().enumerate() {
        for (j, code) in codes.into_iter().enumerate() {
            low[i / 2 * 32 + j] |= code << (i % 2 * 4);
        }
    }
    true
}

pub(super) fn pack_q5_k(x: &[f32], block: &mut [u8]) -> bool {
    let (head, codes_to) = block.split_at_mut(16);
    let Some(runs) = fit_runs(x, &SEARCH_5_BITS, head) else { return false };
    codes_to.fill(0);
    let (high, low) = codes_to.split_at_mut(32);
    for (i, codes) in runs.into_iter().enumerate() {
        for (j, code) in codes.into_iter().enumerate() {
            low[i / 2 * 32 + j] |= (code & 15) << (i % 2 * 4);
            high[j] |= code >> 4 << i;
        }
    }
    true
}

/// The scale of 16 elements, x ≈ scale · code with codes from −32 to 31: by least squares, weighted by squares, over
/// roundings with several scales.
fn fit_symmetric(x: &[f32]) -> f32 {
    let farthest = x.iter().fold(0f32, |m, v| if v.abs() > m.abs() { *v } else { m });
    if farthest.abs() < TINY {
        return 0.0;
    }
    let sums = |by: f32| {
        x.iter().fold([0f32; 2], |[xl, ll], v| {
            let (w, code) = (v * v, (by * v).round_ties_even().clamp(-32.0, 31.0));
            [xl + w * v * code, ll + w * code * code]
        })
    };
    let [xl, ll] = sums(-32.0 / farthest);
    let mut scale = if ll > 0.0 { xl / ll } else { 0.0 };
    let mut best = scale * xl;
    for step in (-9..=9).filter(|step| *step != 0) {
        let [xl, ll] = sums(-(32.0 + 0.1 * step as f32) / farthest);
        if ll > 0.0 && xl * xl > best * ll {
            scale = xl / ll;
            best = scale * xl;
        }
    }
    scale
}

pub(super) fn pack_q6_k(x: &[f32], block: &mut [u8]) -> bool {
    if !is_finite(x) {
        return false;
    }
    block.fill(0);
    let scales: Vec<f32> = x.chunks(16).map(fit_symmetric).collect();
    // The weights of values near the largest f32 overflow.
    if !is_finite(&scales) {
        return false;
    }
    let farthest = scales.iter().fold(0f32, |m, v| if v.abs() > m.abs() { *v } else { m });
    if farthest.abs() < TINY {
        return true;
    }
    let by = -128.0 / farthest;
    let Some(d) = encode_scale(1.0 / by) else { return false };
    block[208..].copy_from_slice(&d);
    let d = f16::from_le_bytes(d).to_f32();
    for (run, (x, scale)) in x.chunks(16).zip(scales).enumerate() {
        let s = (by * scale).round_ties_even().min(127.0) as i8;
        block[192 + run] = s as u8;
        let scale = d * s as f32;
        // For 128 elements there are 64 bytes with the codes' low nibbles: the first 64 elements in the low halves, the
        // others in the high halves.
        let (half, within) = (run / 8, run % 8);
        for (i, v) in x.iter().enumerate() {
            // Any code of a run with scale 0 is right; ggml writes the lowest.
            let code = if scale == 0.0 { -32.0 } else { (v / scale).round_ties_even().clamp(-32.0, 31.0) };
            let code = (code + 32.0) as u8;
            block[64 * half + within % 4 * 16 + i] |= (code & 15) << (within / 4 * 4);
            block[128 + 32 * half + within % 2 * 16 + i] |= code >> 4 << (within / 2 * 2);
        }
    }
    true
}
