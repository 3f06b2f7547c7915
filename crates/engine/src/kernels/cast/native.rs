//! The CPU implementation.

use lowrank_cpu::simd::level;
use lowrank_cpu::tasks::{GRAIN, each_chunk};

use crate::dtype::DType;
use crate::kernel::native::NativeLaunch;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

pub fn cast(l: &NativeLaunch) {
    use DType::*;
    match (l.dtype(0), l.dtype(1)) {
        (F32, F16) => convert_chunks(l, |x: &[f32], y: &mut [f16]| y.convert_from_f32_slice(x)),
        (F32, BF16) => convert_chunks(l, |x: &[f32], y: &mut [bf16]| y.convert_from_f32_slice(x)),
        (F16, F32) => convert_chunks(l, |x: &[f16], y: &mut [f32]| x.convert_to_f32_slice(y)),
        (BF16, F32) => convert_chunks(l, |x: &[bf16], y: &mut [f32]| x.convert_to_f32_slice(y)),
        (F16, BF16) => convert_elements(l, |v: f16| bf16::from_f32(v.to_f32())),
        (BF16, F16) => convert_elements(l, |v: bf16| f16::from_f32(v.to_f32())),
        (F32, I32) => convert_elements(l, |v: f32| v as i32),
        (F16, I32) => convert_elements(l, |v: f16| v.to_f32() as i32),
        (BF16, I32) => convert_elements(l, |v: bf16| v.to_f32() as i32),
        (I32, F32) => convert_elements(l, |v: i32| v as f32),
        (I32, F16) => convert_elements(l, |v: i32| f16::from_f32(v as f32)),
        (I32, BF16) => convert_elements(l, |v: i32| bf16::from_f32(v as f32)),
        (Block(kind), F32) => {
            let (blocks, y) = (l.read::<u8>(0), l.write::<f32>(1));
            assert!(y.len() <= kind.count_elements(blocks.len()), "cast: x ends early");
            let unpack = kind.select_unpack(level());
            // SAFETY: the processor has its level's instructions, and x has at least as many elements as y.
            each_chunk(y, GRAIN, |at, y| unsafe { unpack(blocks.as_ptr(), at, y.len(), y.as_mut_ptr()) });
        }
        (Block(_), _) | (_, Block(_)) => unreachable!("validated by the operation"),
        (F32, F32) | (F16, F16) | (BF16, BF16) | (I32, I32) => {
            unreachable!("the plan casts to another dtype")
        }
    }
}

fn convert_chunks<X, Y>(l: &NativeLaunch, convert: impl Fn(&[X], &mut [Y]) + Sync)
where
    X: bytemuck::Pod + Sync,
    Y: bytemuck::Pod + Send,
{
    let (x, y) = (l.read::<X>(0), l.write::<Y>(1));
    each_chunk(y, GRAIN, |at, y| convert(&x[at..at + y.len()], y));
}

fn convert_elements<X, Y>(l: &NativeLaunch, f: impl Fn(X) -> Y + Sync)
where
    X: bytemuck::Pod + Sync,
    Y: bytemuck::Pod + Send,
{
    convert_chunks(l, |x: &[X], y: &mut [Y]| y.iter_mut().zip(x).for_each(|(y, x)| *y = f(*x)));
}
