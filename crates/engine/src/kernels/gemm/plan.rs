//! Which forms suit a product on a GPU.

use smallvec::SmallVec;

use super::shader::Form;
use super::{Gemm, Matrix};

pub type Forms = SmallVec<[Form; 4]>;

/// The forms that suit a product, all of which sum alike, to the bit. The first is the one that is taken as long as
/// nothing is known of the device.
pub fn candidates(g: &Gemm, a: &Matrix, b: &Matrix) -> Forms {
    let first = default(g, a, b);
    let alike = |form: &Form| std::mem::discriminant(form) == std::mem::discriminant(&first);
    // A block that is mostly past the ends reads and computes for nothing.
    let fits = |form: &Form| {
        let [height, width] = form.block();
        height < 2 * g.m.max(16) && width < 2 * g.n.max(16)
    };
    let all = Form::all(false);
    let others = all.into_iter().filter(|form| *form != first && alike(form) && fits(form));
    std::iter::once(first).chain(others).collect()
}

/// How a product is laid out where nothing is known of the device.
fn default(g: &Gemm, a: &Matrix, b: &Matrix) -> Form {
    if g.m <= 8 && g.k >= 64 && b.row == 1 && a.column == 1 {
        return Form::Dots {
            rows: if g.m > 4 {
                8
            } else if g.m > 1 {
                4
            } else {
                1
            },
        };
    }
    // Large tiles read least, as long as they still fill the GPU.
    let tiles = g.batch * g.m.div_ceil(128) * g.n.div_ceil(128);
    match (g.m, g.n) {
        (..=16, _) => Form::Tile { rows: 1, columns: 4 },
        (_, ..=16) => Form::Tile { rows: 4, columns: 1 },
        _ if tiles >= 64 => Form::Tile { rows: 8, columns: 8 },
        _ => Form::Tile { rows: 4, columns: 4 },
    }
}
