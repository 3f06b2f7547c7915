//! Transforms of tiles: from x to V, and from the sums to y.

use lowrank_cpu::simd::{Isa, Lanes, Zip, compiled};
use lowrank_cpu::tasks::Shared;

use super::{IN, OUT, Scalars, count_tiles};

/// Tiles of a panel that are adjacent within an image.
#[derive(Clone, Copy)]
pub struct Run {
    /// The panel's column of the first tile.
    pub column: usize,
    pub count: usize,
    image: usize,
    /// The position of the first tile in its image.
    tile: [usize; 2],
}

impl Scalars {
    /// Tiles of all images.
    pub fn count_all_tiles(&self) -> usize {
        self.batch * count_tiles(self.out).iter().product::<usize>()
    }

    /// The runs of `count` tiles from `start` on, counted over all images.
    pub fn list_runs(&self, start: usize, count: usize) -> Vec<Run> {
        let [height, width] = count_tiles(self.out);
        let mut runs = Vec::with_capacity(count / width + 2);
        let mut column = 0;
        while column < count {
            let at = start + column;
            let tile = [at / width % height, at % width];
            let length = (width - tile[1]).min(count - column);
            runs.push(Run { column, count: length, image: at / (height * width), tile });
            column += length;
        }
        runs
    }

    /// The range of y for line `p` of a run's tiles; `None` after the last line.
    fn find_line(&self, run: &Run, group: usize, row: usize, p: usize) -> Option<(usize, usize)> {
        let [height, width] = self.out;
        let [h, w] = [OUT * run.tile[0] + p, OUT * run.tile[1]];
        let plane = (run.image * self.groups + group) * self.rows + row;
        (h < height).then(|| ((plane * height + h) * width + w, (OUT * run.count).min(width - w)))
    }
}

/// Elements of the line buffer that `transform_input` needs for a panel's runs.
pub fn count_line_buffer(runs: &[Run], lanes: usize) -> usize {
    runs.len() * IN * count_line(runs, lanes)
}

/// Elements of one line: whole vectors of tiles, plus the last tile's overlap.
fn count_line(runs: &[Run], lanes: usize) -> usize {
    let longest = runs.iter().map(|run| run.count).max().unwrap_or(0);
    (OUT * longest.next_multiple_of(lanes) + IN - OUT).next_multiple_of(lanes)
}

compiled! {
    exact
    /// Computes V = Bᵀ·d·B for the runs of a panel and for `channels` (the first, and the number) of a group. The
    /// elements of `v`, at a stride of `step`, have a row of `panel` tiles for each channel. Elements after a row's
    /// last tile, and up to a vector after the last row, are unspecified.
    ///
    /// # Safety
    /// `lines` covers `count_line_buffer` elements; `v` covers the elements, with a vector more each.
    pub fn transform_input(
        s: &Scalars,
        x: &[f32],
        group: usize,
        channels: (usize, usize),
        runs: &[Run],
        panel: usize,
        lines: *mut f32,
        v: *mut f32,
        step: usize,
    ) {
        let [height, width] = s.size;
        let line = count_line(runs, S::WIDTH);
        let (first, len) = channels;
        for channel in 0..len {
            // The lines that the tiles read, with zeros around x. All are written first, since a load that spans two
            // recent stores would stall.
            for (run, at) in runs.iter().zip((0..).step_by(IN * line)) {
                let plane = (run.image * s.groups + group) * s.channels + first + channel;
                let x = &x[plane * height * width..][..height * width];
                let first_h = (OUT * run.tile[0]) as isize + s.first_h as isize;
                let first_w = (OUT * run.tile[1]) as isize + s.first_w as isize;
                let count = OUT * run.count + IN - OUT;
                // The elements of a line that are within x.
                let low = first_w.min(0).unsigned_abs().min(count);
                let high = (width as isize - first_w).clamp(low as isize, count as isize) as usize;
                for i in 0..IN {
                    // SAFETY: guaranteed by the caller; a line of x is copied up to its end.
                    unsafe {
                        let to = lines.add(at + i * line);
                        match usize::try_from(first_h + i as isize).ok().filter(|h| *h < height) {
                            Some(h) if low < high => {
                                let x = &x[h * width..][..width];
                                let x = &x[(first_w + low as isize) as usize..][..high - low];
                                write_zeros(to, low);
                                copy::<S>(x.as_ptr(), to.add(low), x.len());
                                write_zeros(to.add(high), count - high);
                            }
                            _ => write_zeros(to, count),
                        }
                    }
                }
            }
            for (run, from) in runs.iter().zip((0..).step_by(IN * line)) {
                for j in (0..run.count).step_by(S::WIDTH) {
                    // SAFETY: guaranteed by the caller; a vector that extends past its run is overwritten by the next
                    // run.
                    unsafe {
                        let mut d = [[S::zero(); IN]; IN];
                        for (i, d) in d.iter_mut().enumerate() {
                            let at = lines.add(from + i * line + OUT * j);
                            let [d0, d1] = S::V::unzip([S::V::load(at), S::V::load(at.add(S::WIDTH))]);
                            let at = at.add(OUT);
                            let [d2, d3] = S::V::unzip([S::V::load(at), S::V::load(at.add(S::WIDTH))]);
                            *d = [d0.sub(d2), d1.add(d2), d2.sub(d1), d1.sub(d3)];
                        }
                        let to = v.add(channel * panel + run.column + j);
                        // w is a column of d, not a row.
                        #[allow(clippy::needless_range_loop)]
                        for w in 0..IN {
                            let [d0, d1, d2, d3] = [d[0][w], d[1][w], d[2][w], d[3][w]];
                            d0.sub(d2).store(to.add(w * step));
                            d1.add(d2).store(to.add((IN + w) * step));
                            d2.sub(d1).store(to.add((2 * IN + w) * step));
                            d1.sub(d3).store(to.add((3 * IN + w) * step));
                        }
                    }
                }
            }
        }
    }

    /// Stores Aᵀ·m·A of `rows` rows of a panel to y, from `row` of a group on, plus `bias` (null for none), or adds it
    /// to y if `accumulate`. The elements of `sums` are [rows, panel].
    ///
    /// # Safety
    /// `sums` covers the elements; `lines` covers twice `rows` lines of 2 × panel; the rows and tiles of y belong to
    /// this task.
    pub fn transform_output(
        s: &Scalars,
        sums: *const f32,
        group: usize,
        rows: (usize, usize),
        runs: &[Run],
        panel: usize,
        bias: *const f32,
        accumulate: bool,
        lines: *mut f32,
        y: &Shared<f32>,
    ) {
        let (row, rows) = rows;
        let tiles: usize = runs.iter().map(|run| run.count).sum();
        let line = OUT * panel;
        // SAFETY: guaranteed by the caller.
        unsafe {
            for i in 0..rows {
                let added = if bias.is_null() { S::zero() } else { S::V::splat(*bias.add(i)) };
                for j in (0..tiles).step_by(S::WIDTH) {
                    let mut m = [[S::zero(); IN]; OUT];
                    // w is a column of m, not a row.
                    #[allow(clippy::needless_range_loop)]
                    for w in 0..IN {
                        let at = sums.add(i * panel + j);
                        let element = |h: usize| at.add((h * IN + w) * rows * panel);
                        let (m0, m1) = (S::V::load(element(0)), S::V::load(element(1)));
                        let (m2, m3) = (S::V::load(element(2)), S::V::load(element(3)));
                        m[0][w] = m0.add(m1).add(m2);
                        m[1][w] = m1.sub(m2).sub(m3);
                    }
                    for (p, [m0, m1, m2, m3]) in m.into_iter().enumerate() {
                        let even = m0.add(m1).add(m2).add(added);
                        let odd = m1.sub(m2).sub(m3).add(added);
                        let [first, second] = S::V::zip([even, odd]);
                        let to = lines.add((i * OUT + p) * line + OUT * j);
                        first.store(to);
                        second.store(to.add(S::WIDTH));
                    }
                }
            }
            for i in 0..rows {
                for run in runs {
                    for p in 0..OUT {
                        let Some((at, count)) = s.find_line(run, group, row + i, p) else { continue };
                        let from = lines.add((i * OUT + p) * line + OUT * run.column);
                        match accumulate {
                            true => add::<S>(from, y.at(at, count), count),
                            false => copy::<S>(from, y.at(at, count), count),
                        }
                    }
                }
            }
        }
    }
}

/// Writes a few zeros.
#[inline(always)]
unsafe fn write_zeros(to: *mut f32, count: usize) {
    for i in 0..count {
        // SAFETY: guaranteed by the caller.
        unsafe { *to.add(i) = 0.0 };
    }
}

/// Copies contiguous elements.
#[inline(always)]
unsafe fn copy<S: Isa>(from: *const f32, to: *mut f32, count: usize) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let whole = count / S::WIDTH * S::WIDTH;
        for i in (0..whole).step_by(S::WIDTH) {
            S::V::load(from.add(i)).store(to.add(i));
        }
        if whole < count {
            S::V::load_first(from.add(whole), count - whole).store_first(to.add(whole), count - whole);
        }
    }
}

/// Adds contiguous elements to others.
#[inline(always)]
unsafe fn add<S: Isa>(from: *const f32, to: *mut f32, count: usize) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let whole = count / S::WIDTH * S::WIDTH;
        for i in (0..whole).step_by(S::WIDTH) {
            S::V::load(to.add(i)).add(S::V::load(from.add(i))).store(to.add(i));
        }
        let rest = count - whole;
        if rest > 0 {
            let (from, to) = (from.add(whole), to.add(whole));
            S::V::load_first(to, rest).add(S::V::load_first(from, rest)).store_first(to, rest);
        }
    }
}
