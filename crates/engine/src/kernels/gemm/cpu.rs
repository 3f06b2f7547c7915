//! The native twin.

use std::borrow::Cow;

use gemm::Parallelism;

use crate::device::cpu::CpuLaunch;

pub fn gemm<const BIAS: bool>(l: &CpuLaunch) {
    let [m, n, k, batch] = [0, 1, 2, 3].map(|i| l.u32(i));
    let [a_batch, a_row, a_column, b_batch, b_row, b_column, c_batch, c_row] =
        [4, 5, 6, 7, 8, 9, 10, 11].map(|i| l.u32(i));
    let (alpha, mut accumulate) = (l.f32(12), l.u32(13) == 1);
    let a = l.read::<f32>(0);
    let b: Cow<[f32]> = l.read_f32(1);
    let c = l.write::<f32>(2 + BIAS as usize);
    if BIAS {
        let bias = &l.read::<f32>(2)[..n];
        for z in 0..batch {
            for row in 0..m {
                let at = z * c_batch + row * c_row;
                let c = &mut c[at..at + n];
                if accumulate {
                    c.iter_mut().zip(bias).for_each(|(c, b)| *c += b);
                } else {
                    c.copy_from_slice(bias);
                }
            }
        }
        accumulate = true;
    }
    for z in 0..batch {
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                c.as_mut_ptr().add(z * c_batch),
                1,
                c_row as isize,
                accumulate,
                a.as_ptr().add(z * a_batch),
                a_column as isize,
                a_row as isize,
                b.as_ptr().add(z * b_batch),
                b_column as isize,
                b_row as isize,
                1.0,
                alpha,
                false,
                false,
                false,
                Parallelism::Rayon(l.threads),
            );
        }
    }
}
