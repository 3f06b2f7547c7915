//! How a correlation is laid out on a GPU: by its shape, and by how the factor lies that is not gathered.

use smallvec::SmallVec;

use crate::kernel::{Params, Range};
use crate::kernels::gemm::stage::Read;
use crate::kernels::gemm::tile::Tile;

/// How the work is laid out over invocations. All forms sum alike: any may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// An element an invocation; the row is the workgroup's, the columns the lanes'. No shared memory: one row has
    /// nothing to share.
    Lanes,
    /// A tile a workgroup, over blocks of both factors in shared memory; how the one is read that is not gathered.
    Tile(Tile, Read),
}

impl Form {
    pub fn all() -> Vec<Form> {
        let tiles = Tile::ALL.iter().flat_map(|tile| Form::reads().map(|read| Form::Tile(*tile, read)));
        [Form::Lanes].into_iter().chain(tiles).collect()
    }

    /// Both have terms that are neighbours.
    fn reads() -> [Read; 2] {
        [Read::Elements, Read::Terms]
    }

    /// The pipeline's key.
    pub fn params(self) -> Params {
        match self {
            Form::Lanes => [1 << 16, 0, 0, 0],
            Form::Tile(tile, read) => {
                let [sides, depth, lane] = tile.words();
                [(read == Read::Terms) as u32, sides, depth, lane]
            }
        }
    }

    /// The form of a pipeline's key.
    pub fn of([kind, sides, depth, lane]: Params) -> Form {
        match kind >> 16 {
            0 => Form::Tile(Tile::of([sides, depth, lane]), Form::reads()[kind as usize & 1]),
            _ => Form::Lanes,
        }
    }

    pub fn threads(self) -> u32 {
        match self {
            Form::Lanes => 32,
            Form::Tile(tile, _) => tile.threads(),
        }
    }

    /// Rows and columns that a workgroup makes.
    pub fn block(self) -> [usize; 2] {
        match self {
            Form::Lanes => [1, self.threads() as usize],
            Form::Tile(tile, _) => [tile.rows as usize, tile.columns as usize],
        }
    }

    /// The form for a part of it, whose factor has `terms` in rows `row` elements apart.
    pub fn within(self, terms: usize, row: usize, factor: &Range) -> Form {
        let whole = factor.offset.is_multiple_of(4 * factor.dtype.bytes() as u64);
        match self {
            Form::Tile(tile, Read::Terms) if !(whole && terms.is_multiple_of(4) && row.is_multiple_of(4)) => {
                Form::Tile(tile, Read::Elements)
            }
            form => form,
        }
    }
}

pub type Candidates = SmallVec<[Form; 12]>;

/// The forms of a product of `m` rows and `n` columns, `matrices` times, that by its shape first. What cannot be read
/// by vectors is read by elements when it is launched.
pub fn candidates(matrices: usize, m: usize, n: usize) -> Candidates {
    let tiled = |tile: Tile| Form::Tile(tile, Read::Terms);
    let first = Tile::by_shape(matrices, m, n);
    let mut all = Candidates::new();
    if m == 1 {
        all.push(Form::Lanes);
    }
    all.push(tiled(first));
    let others = Tile::ALL.iter().filter(|tile| **tile != first && tile.suits(m, n));
    all.extend(others.map(|tile| tiled(*tile)));
    all
}
