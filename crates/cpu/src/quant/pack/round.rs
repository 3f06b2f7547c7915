//! Blocks of 32 elements, each rounded by one scale. Source: quantize_row_q*_ref of ggml-quants.c.

use super::{encode_scale, inverse, is_finite};

pub(super) fn pack_q8_0(x: &[f32], block: &mut [u8]) -> bool {
    let largest = x.iter().fold(0f32, |m, v| m.max(v.abs()));
    let d = largest / 127.0;
    let by = inverse(d);
    let Some(scale) = encode_scale(d).filter(|_| is_finite(x)) else { return false };
    block[..2].copy_from_slice(&scale);
    for (code, v) in block[2..].iter_mut().zip(x) {
        // Rounds half away from 0.
        *code = (v * by).round() as i8 as u8;
    }
    true
}

pub(super) fn pack_q4_0(x: &[f32], block: &mut [u8]) -> bool {
    // The first element of largest magnitude becomes −8.
    let d = find_largest_magnitude(x) / -8.0;
    let by = inverse(d);
    let Some(scale) = encode_scale(d).filter(|_| is_finite(x)) else { return false };
    block[..2].copy_from_slice(&scale);
    let code = |v: f32| ((v * by + 8.5) as u8).min(15);
    for (i, byte) in block[2..].iter_mut().enumerate() {
        *byte = code(x[i]) | code(x[16 + i]) << 4;
    }
    true
}

/// The element of largest magnitude, the first of several.
fn find_largest_magnitude(x: &[f32]) -> f32 {
    x.iter().fold(x[0], |m, v| if v.abs() > m.abs() { *v } else { m })
}

/// The smallest element, and the step that divides the range into `steps`.
fn find_range(x: &[f32], steps: f32) -> (f32, f32) {
    let low = x.iter().fold(f32::INFINITY, |m, v| m.min(*v));
    let high = x.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    (low, (high - low) / steps)
}

/// Writes the low nibbles of 32 codes and, for codes of 5 bits, the fifth bits.
fn write_codes(codes: &[u8; 32], high: Option<&mut [u8]>, low: &mut [u8]) {
    for (i, byte) in low.iter_mut().enumerate() {
        *byte = codes[i] & 15 | codes[16 + i] << 4;
    }
    if let Some(high) = high {
        let bits = codes.iter().enumerate().fold(0, |bits, (i, code)| bits | ((code >> 4) as u32) << i);
        high.copy_from_slice(&bits.to_le_bytes());
    }
}

pub(super) fn pack_q4_1(x: &[f32], block: &mut [u8]) -> bool {
    let (low, d) = find_range(x, 15.0);
    let by = inverse(d);
    let (Some(scale), Some(minimum), true) = (encode_scale(d), encode_scale(low), is_finite(x)) else {
        return false;
    };
    block[..2].copy_from_slice(&scale);
    block[2..4].copy_from_slice(&minimum);
    let codes = std::array::from_fn(|i| (((x[i] - low) * by + 0.5) as u8).min(15));
    write_codes(&codes, None, &mut block[4..]);
    true
}

pub(super) fn pack_q5_0(x: &[f32], block: &mut [u8]) -> bool {
    let d = find_largest_magnitude(x) / -16.0;
    let by = inverse(d);
    let Some(scale) = encode_scale(d).filter(|_| is_finite(x)) else { return false };
    block[..2].copy_from_slice(&scale);
    let codes = std::array::from_fn(|i| ((x[i] * by + 16.5) as u8).min(31));
    let (high, low) = block[2..].split_at_mut(4);
    write_codes(&codes, Some(high), low);
    true
}

pub(super) fn pack_q5_1(x: &[f32], block: &mut [u8]) -> bool {
    let (low, d) = find_range(x, 31.0);
    let by = inverse(d);
    let (Some(scale), Some(minimum), true) = (encode_scale(d), encode_scale(low), is_finite(x)) else {
        return false;
    };
    block[..2].copy_from_slice(&scale);
    block[2..4].copy_from_slice(&minimum);
    let codes = std::array::from_fn(|i| (((x[i] - low) * by + 0.5) as u8).min(31));
    let (high, low) = block[4..].split_at_mut(4);
    write_codes(&codes, Some(high), low);
    true
}
