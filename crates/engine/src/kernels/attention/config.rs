//! The variants of the kernels: head size, invocations, vector reads, and reductions with or without subgroups.

use crate::kernel::{Kernel, Params};
use lowrank_cpu::attention::DIM;

/// Head sizes that shaders are compiled for; smaller ones are padded.
pub const CLASSES: [usize; 4] = [32, 64, 128, DIM];

/// The class of a head size.
fn classify_dim(dim: usize) -> usize {
    CLASSES.iter().position(|c| dim <= *c).expect("validated by the operation")
}

/// A variant of a tiled kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    pub class: usize,
    pub threads: usize,
    /// Rows are read in vectors of four.
    pub vectors: bool,
    /// Row maxima and sums are reduced with subgroups.
    pub subgroups: bool,
    /// Weights are dropped.
    pub dropped: bool,
}

/// Invocations of the larger tile and of the smaller one, which has half as many own rows.
pub const LARGE: usize = 128;
pub const SMALL: usize = 64;

impl Config {
    /// Heads of 33 to 128 have both tiles; other head sizes have only the smaller one. Head sizes that cannot be read
    /// in vectors have one variant.
    pub fn new(dim: usize, threads: usize, vectors: bool, subgroups: bool) -> Config {
        let class = classify_dim(dim);
        match (vectors, CLASSES[class]) {
            (false, _) => {
                Config { class: classify_dim(DIM), threads: SMALL, vectors, subgroups: false, dropped: false }
            }
            (true, 64 | 128) => Config { class, threads, vectors, subgroups, dropped: false },
            (true, _) => Config { class, threads: SMALL, vectors, subgroups, dropped: false },
        }
    }

    /// Returns every variant; those with subgroups only if the kernel has them.
    pub fn list(subgroups: bool) -> Vec<Config> {
        let mut all = vec![Config::new(DIM, SMALL, false, false)];
        for (dim, threads) in CLASSES.iter().flat_map(|dim| [(*dim, SMALL), (*dim, LARGE)]) {
            all.push(Config::new(dim, threads, true, false));
            if subgroups {
                all.push(Config::new(dim, threads, true, true));
            }
        }
        let mut listed = Vec::new();
        all.into_iter().for_each(|config| {
            if !listed.contains(&config) {
                listed.push(config);
            }
        });
        listed
    }

    pub fn params(self) -> Params {
        let reductions = self.subgroups as usize + 2 * self.dropped as usize;
        [self.class, self.threads, self.vectors as usize, reductions].map(|v| v as u32)
    }

    pub fn from_params(params: Params) -> Config {
        let [class, threads, vectors, reductions] = params.map(|v| v as usize);
        Config {
            class,
            threads,
            vectors: vectors == 1,
            subgroups: reductions % 2 == 1,
            dropped: reductions >= 2,
        }
    }
}

/// The properties of a variant in words, such as `heads to 64`; none if the kernel has one variant.
pub fn describe(kernel: &Kernel, params: Params) -> Vec<String> {
    let heads = |class: usize| format!("heads to {}", CLASSES[class]);
    match kernel.name {
        "attention_decode" => {
            let decode = Decode::from_params(params);
            vec![heads(decode.class), format!("{} rows", decode.rows())]
        }
        "attention_merge" | "attention_rows" => Vec::new(),
        _ => {
            let Config { class, threads, vectors, subgroups, .. } = Config::from_params(params);
            let loads = if vectors { "vector loads" } else { "scalar loads" };
            let sums = if subgroups { "sums by subgroups" } else { "sums in shared memory" };
            vec![heads(class), format!("{threads} threads"), loads.into(), sums.into()]
        }
    }
}

/// A variant for few query rows, read in vectors. `params` = [class].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decode {
    class: usize,
}

impl Decode {
    pub fn new(dim: usize) -> Decode {
        Decode { class: classify_dim(dim) }
    }

    pub fn params(self) -> Params {
        [self.class as u32, 0, 0, 0]
    }

    pub fn from_params(params: Params) -> Decode {
        Decode { class: params[0] as usize }
    }

    /// The head size it is compiled for.
    pub fn dim(self) -> usize {
        CLASSES[self.class]
    }

    /// The most query rows of one key/value head.
    pub fn rows(self) -> usize {
        [8, 8, 8, 4][self.class]
    }
}
