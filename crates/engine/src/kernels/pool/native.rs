//! The CPU implementation: each task has whole planes, so it can scatter gradients.

use lowrank_cpu::tasks::{GRAIN, Shared, each_row};

use super::{Scalars, Windows};
use crate::kernel::native::NativeLaunch;

impl Windows {
    fn from_launch(l: &NativeLaunch) -> Windows {
        let Scalars { size, out, kernel, stride, padding, .. } = l.scalars();
        Windows {
            planes: 0,
            size,
            out,
            kernel,
            stride,
            padding,
            adaptive: l.params[0] == 1,
            count_padding: l.params[1] == 1,
        }
    }

    /// Planes per task.
    fn grain(&self) -> usize {
        (GRAIN / (product(self.out) * product(self.kernel))).max(1)
    }

    /// The range of window `o` in dimension `d`, and its factor of the divisor.
    fn find_window(&self, d: usize, o: usize) -> (usize, usize, usize) {
        let (size, out) = (self.size[d], self.out[d]);
        if self.adaptive {
            let (low, high) = (o * size / out, ((o + 1) * size).div_ceil(out));
            return (low, high, high - low);
        }
        let start = o * self.stride[d];
        let end = (start + self.kernel[d]).min(size + 2 * self.padding[d]);
        let (low, high) = (start.saturating_sub(self.padding[d]), (end - self.padding[d]).min(size));
        (low, high, if self.count_padding { end - start } else { high - low })
    }

    /// Calls `visit` for every contiguous run of a plane's elements in a window, with the window, the run's start, its
    /// length, and the window's divisor.
    #[inline(always)]
    fn for_each_run(&self, mut visit: impl FnMut(usize, usize, usize, usize)) {
        let [out_d, out_h, out_w] = self.out;
        let [_, size_h, size_w] = self.size;
        let columns: Vec<_> = (0..out_w).map(|w| self.find_window(2, w)).collect();
        for d in 0..out_d {
            let (low_d, high_d, count_d) = self.find_window(0, d);
            for h in 0..out_h {
                let (low_h, high_h, count_h) = self.find_window(1, h);
                for (w, (low_w, high_w, count_w)) in columns.iter().enumerate() {
                    for (i_d, i_h) in (low_d..high_d).flat_map(|d| (low_h..high_h).map(move |h| (d, h))) {
                        let start = (i_d * size_h + i_h) * size_w + low_w;
                        visit(
                            (d * out_h + h) * out_w + w,
                            start,
                            high_w - low_w,
                            count_d * count_h * count_w,
                        );
                    }
                }
            }
        }
    }
}

fn product(n: [usize; 3]) -> usize {
    n.iter().product()
}

pub fn max(l: &NativeLaunch) {
    let w = Windows::from_launch(l);
    let (x, y, index) = (l.read::<f32>(0), l.write::<f32>(1), l.write::<i32>(2));
    let (size, out) = (product(w.size), product(w.out));
    let (y, index) = (Shared::new(y), Shared::new(index));
    each_row(x.len() / size, w.grain(), |plane| {
        let x = &x[plane * size..][..size];
        // SAFETY: each plane belongs to one task.
        let (y, index) = unsafe { (y.slice(plane * out, out), index.slice(plane * out, out)) };
        index.fill(-1);
        w.for_each_run(|o, start, count, _| {
            for (i, v) in x[start..start + count].iter().enumerate() {
                if index[o] < 0 || *v > y[o] || v.is_nan() {
                    y[o] = *v;
                    index[o] = (start + i) as i32;
                }
            }
        });
    });
}

pub fn max_backward(l: &NativeLaunch) {
    let w = Windows::from_launch(l);
    let (d, index, d_x) = (l.read::<f32>(0), l.read::<i32>(1), l.write::<f32>(2));
    let (size, out) = (product(w.size), product(w.out));
    let (planes, d_x) = (d_x.len() / size, Shared::new(d_x));
    each_row(planes, w.grain(), |plane| {
        let (d, index) = (&d[plane * out..][..out], &index[plane * out..][..out]);
        // SAFETY: each plane belongs to one task.
        let d_x = unsafe { d_x.slice(plane * size, size) };
        d_x.fill(0.0);
        for (d, i) in d.iter().zip(index) {
            d_x[*i as usize] += d;
        }
    });
}

pub fn mean(l: &NativeLaunch) {
    let w = Windows::from_launch(l);
    let (x, y) = (l.read::<f32>(0), l.write::<f32>(1));
    let (size, out) = (product(w.size), product(w.out));
    let y = Shared::new(y);
    each_row(x.len() / size, w.grain(), |plane| {
        // SAFETY: each plane belongs to one task.
        let (x, y) = (&x[plane * size..][..size], unsafe { y.slice(plane * out, out) });
        y.fill(0.0);
        let mut divisors = vec![1; y.len()];
        w.for_each_run(|o, start, count, divisor| {
            divisors[o] = divisor;
            for v in &x[start..start + count] {
                y[o] += v;
            }
        });
        for (y, divisor) in y.iter_mut().zip(divisors) {
            *y /= divisor as f32;
        }
    });
}

pub fn mean_backward(l: &NativeLaunch) {
    let w = Windows::from_launch(l);
    let (d, d_x) = (l.read::<f32>(0), l.write::<f32>(1));
    let (size, out) = (product(w.size), product(w.out));
    let (planes, d_x) = (d_x.len() / size, Shared::new(d_x));
    each_row(planes, w.grain(), |plane| {
        // SAFETY: each plane belongs to one task.
        let (d, d_x) = (&d[plane * out..][..out], unsafe { d_x.slice(plane * size, size) });
        d_x.fill(0.0);
        w.for_each_run(|o, start, count, divisor| {
            let d = d[o] / divisor as f32;
            for v in &mut d_x[start..start + count] {
                *v += d;
            }
        });
    });
}
