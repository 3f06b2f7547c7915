//! The plan of a correlation on a GPU, from its shape and the strides of the factor that is not gathered.

use smallvec::SmallVec;

use crate::kernel::{Params, Range};
use crate::kernels::gemm::stage::Read;
use crate::kernels::gemm::tile::Tile;

/// The variant of a correlation. All variants sum in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Config {
    /// One element per invocation; a workgroup has one row and its lanes are columns. It uses no shared memory, since
    /// one row has nothing to share.
    Lanes,
    /// A tile per workgroup, over blocks of both factors in shared memory; and the access pattern of the factor that is
    /// not gathered.
    Tile(Tile, Read),
}

impl Config {
    pub fn list() -> Vec<Config> {
        let tiles =
            Tile::ALL.iter().flat_map(|tile| Config::list_reads().map(|read| Config::Tile(*tile, read)));
        [Config::Lanes].into_iter().chain(tiles).collect()
    }

    /// The access patterns for contiguous terms.
    fn list_reads() -> [Read; 2] {
        [Read::Elements, Read::Terms]
    }

    /// The pipeline's key.
    pub fn params(self) -> Params {
        match self {
            Config::Lanes => [1 << 16, 0, 0, 0],
            Config::Tile(tile, read) => {
                let [sides, depth, lane] = tile.to_words();
                [(read == Read::Terms) as u32, sides, depth, lane]
            }
        }
    }

    /// The variant of a pipeline's key.
    pub fn from_params([kind, sides, depth, lane]: Params) -> Config {
        match kind >> 16 {
            0 => {
                Config::Tile(Tile::from_words([sides, depth, lane]), Config::list_reads()[kind as usize & 1])
            }
            _ => Config::Lanes,
        }
    }

    pub fn threads(self) -> u32 {
        match self {
            Config::Lanes => 32,
            Config::Tile(tile, _) => tile.threads(),
        }
    }

    /// Rows and columns per workgroup.
    pub fn block(self) -> [usize; 2] {
        match self {
            Config::Lanes => [1, self.threads() as usize],
            Config::Tile(tile, _) => [tile.rows as usize, tile.columns as usize],
        }
    }

    /// The variant for a part whose factor has `terms` terms and a row stride of `row` elements.
    pub fn restrict_to(self, terms: usize, row: usize, factor: &Range) -> Config {
        let whole = factor.offset.is_multiple_of(4 * factor.dtype.bytes() as u64);
        match self {
            Config::Tile(tile, Read::Terms)
                if !(whole && terms.is_multiple_of(4) && row.is_multiple_of(4)) =>
            {
                Config::Tile(tile, Read::Elements)
            }
            config => config,
        }
    }
}

pub type Candidates = SmallVec<[Config; 12]>;

/// The variants of `matrices` products of `m` rows and `n` columns, the default first. A launch falls back to access by
/// elements where vectors are not possible.
pub fn list_candidates(matrices: usize, m: usize, n: usize) -> Candidates {
    let tiled = |tile: Tile| Config::Tile(tile, Read::Terms);
    let first = Tile::choose(matrices, m, n);
    let mut all = Candidates::new();
    if m == 1 {
        all.push(Config::Lanes);
    }
    all.push(tiled(first));
    let others = Tile::ALL.iter().filter(|tile| **tile != first && tile.is_suitable(m, n));
    all.extend(others.map(|tile| tiled(*tile)));
    all
}
