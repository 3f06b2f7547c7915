//! Conversion between float types on the host.

use half::slice::HalfFloatSliceExt;

use crate::dtype::DType;

/// Elements converted together, in arrays on the stack: the file's bytes are not aligned.
const BLOCK: usize = 1024;

/// Converts between two float types, rounding to nearest even.
pub(super) fn convert(bytes: &[u8], from: DType, to: DType) -> Vec<u8> {
    let mut converted = vec![0; bytes.len() / from.bytes() * to.bytes()];
    let (mut wide, mut f16s, mut bf16s) =
        ([0f32; BLOCK], [half::f16::ZERO; BLOCK], [half::bf16::ZERO; BLOCK]);
    let source = bytes.chunks(BLOCK * from.bytes());
    for (source, target) in source.zip(converted.chunks_mut(BLOCK * to.bytes())) {
        let n = source.len() / from.bytes();
        let wide = &mut wide[..n];
        widen(source, from, wide);
        match to {
            DType::F32 => target.copy_from_slice(bytemuck::cast_slice(wide)),
            DType::F16 => {
                f16s[..n].convert_from_f32_slice(wide);
                target.copy_from_slice(bytemuck::cast_slice(&f16s[..n]));
            }
            DType::BF16 => {
                bf16s[..n].convert_from_f32_slice(wide);
                target.copy_from_slice(bytemuck::cast_slice(&bf16s[..n]));
            }
            DType::I32 | DType::Block(_) => unreachable!("floats only"),
        }
    }
    converted
}

/// Widens at most `BLOCK` elements to f32.
pub(super) fn widen(source: &[u8], from: DType, wide: &mut [f32]) {
    let n = wide.len();
    match from {
        DType::F32 => bytemuck::cast_slice_mut(wide).copy_from_slice(source),
        DType::F16 => {
            let mut halves = [half::f16::ZERO; BLOCK];
            bytemuck::cast_slice_mut(&mut halves[..n]).copy_from_slice(source);
            halves[..n].convert_to_f32_slice(wide);
        }
        DType::BF16 => {
            let mut halves = [half::bf16::ZERO; BLOCK];
            bytemuck::cast_slice_mut(&mut halves[..n]).copy_from_slice(source);
            halves[..n].convert_to_f32_slice(wide);
        }
        DType::I32 | DType::Block(_) => unreachable!("floats only"),
    }
}
