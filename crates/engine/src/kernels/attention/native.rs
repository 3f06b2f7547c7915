//! The CPU implementations: pass a launch's bindings to the attention of `lowrank_cpu`.

use lowrank_cpu::attention::{self, DropoutMask, Geometry, Inputs, Labels, ROUNDED};
use lowrank_cpu::simd::{Level, level};

use super::Delta;
use super::geometry::Dropped;
use crate::kernel::native::NativeLaunch;
use crate::kernels::gemm::native::rounded_level;

/// The instruction set of a launch: with rounded products, the fastest one as measured.
fn choose_level(g: &Geometry) -> Level {
    if g.flags & ROUNDED != 0 { rounded_level() } else { level().exact() }
}

/// The geometry and the mask of a launch with dropout.
fn read_dropped(l: &NativeLaunch) -> (Geometry, Option<DropoutMask>) {
    let Dropped { geometry, key, threshold, row_base } = l.scalars();
    (geometry, Some(DropoutMask::new(&geometry, key, threshold, row_base)))
}

/// The labels, in three bindings from `first` on.
fn read_labels<'a>(l: &'a NativeLaunch, first: usize) -> Labels<'a> {
    Labels { query_segment: l.read(first), key_segment: l.read(first + 1), mask: l.read(first + 2) }
}

pub fn forward(l: &NativeLaunch) {
    forward_with(l, (l.scalars(), None));
}

pub fn forward_dropped(l: &NativeLaunch) {
    forward_with(l, read_dropped(l));
}

fn forward_with(l: &NativeLaunch, (g, mask): (Geometry, Option<DropoutMask>)) {
    let factors = [l.read(0), l.read(1), l.read(2)];
    attention::forward(
        &g,
        choose_level(&g),
        l.threads,
        factors,
        read_labels(l, 3),
        mask,
        l.write(6),
        l.write(7),
    );
}

pub fn delta(l: &NativeLaunch) {
    let Delta { dim, .. } = l.scalars();
    attention::compute_delta(l.read(0), l.read(1), dim, l.write(2));
}

pub fn backward(l: &NativeLaunch) {
    backward_with(l, (l.scalars(), None));
}

pub fn backward_dropped(l: &NativeLaunch) {
    backward_with(l, read_dropped(l));
}

fn backward_with(l: &NativeLaunch, (g, mask): (Geometry, Option<DropoutMask>)) {
    let inputs = Inputs {
        q: l.read(0),
        k: l.read(1),
        v: l.read(2),
        d_o: l.read(3),
        lse: l.read(4),
        delta: l.read(5),
        labels: read_labels(l, 6),
        mask,
    };
    let d_kv = [l.write(10), l.write(11)];
    attention::backward(&g, choose_level(&g), l.threads, &inputs, l.write(9), d_kv, l.write(12));
}
