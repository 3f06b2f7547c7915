//! Incremental principal component analysis of rows that arrive in batches.

use faer::{Mat, MatRef};

use crate::{Result, Svd, svd, svd_low_rank};

/// The largest matrix side for an exact decomposition. Larger batches use a random subspace, since an exact
/// decomposition would take minutes.
const EXACT: usize = 768;
/// Rounds on the random subspace, and its width as a multiple of the components, as in torch.svd_lowrank and PEFT.
const ITERATIONS: usize = 4;
const OVERSAMPLING: usize = 2;

/// Incremental principal components: updates mean, singular values and components with one batch at a time.
/// Source: Ross, Lim, Lin, Yang 2008; scikit-learn's IncrementalPCA, the model of PEFT's.
pub struct IncrementalPca {
    components: usize,
    seen: f64,
    mean: Vec<f64>,
    /// Σ (x − mean)² of each feature.
    spread: Vec<f64>,
    svd: Option<Svd>,
    /// The cosine similarity of each component before and after the last batch.
    similarity: Vec<f64>,
}

impl IncrementalPca {
    /// Keeps the `components` strongest components of rows with `features` values.
    pub fn new(components: usize, features: usize) -> IncrementalPca {
        IncrementalPca {
            components,
            seen: 0.0,
            mean: vec![0.0; features],
            spread: vec![0.0; features],
            svd: None,
            similarity: Vec::new(),
        }
    }

    /// Adds a batch of rows and returns true. Ignores a batch with fewer rows than components, as PEFT does, and
    /// returns false. `draw` returns the given number of values of N(0, 1); large batches need it.
    pub fn fit(&mut self, batch: MatRef<'_, f64>, draw: impl FnOnce(usize) -> Vec<f32>) -> Result<bool> {
        let (rows, features) = (batch.nrows(), batch.ncols());
        assert_eq!(features, self.mean.len(), "a batch of {features} features");
        if rows < self.components {
            return Ok(false);
        }
        let count = rows as f64;
        let total = self.seen + count;
        let batch_mean: Vec<f64> = (0..features).map(|j| batch.col(j).iter().sum::<f64>() / count).collect();
        let shift = (self.seen / total * count).sqrt();
        let before = self.svd.as_ref();
        let kept = before.map_or(0, |svd| svd.s.len());
        let stacked = Mat::from_fn(kept + rows + usize::from(kept > 0), features, |i, j| match before {
            Some(svd) if i < kept => svd.s[i] * svd.vt[(i, j)],
            Some(_) if i == kept + rows => shift * (self.mean[j] - batch_mean[j]),
            _ => batch[(i - kept, j)] - batch_mean[j],
        });
        let small = stacked.nrows().min(features);
        let svd = if small <= EXACT {
            svd(stacked.as_ref(), self.components)?
        } else {
            let width = self.components * OVERSAMPLING;
            svd_low_rank(stacked.as_ref(), self.components, width, ITERATIONS, draw)?
        };
        self.similarity = before.map_or(Vec::new(), |before| {
            (0..svd.s.len()).map(|k| cosine(before.vt.row(k).iter(), svd.vt.row(k).iter())).collect()
        });
        for (j, mean) in batch_mean.iter().enumerate() {
            let within: f64 = batch.col(j).iter().map(|x| (x - mean).powi(2)).sum();
            self.spread[j] += within + shift * shift * (self.mean[j] - mean).powi(2);
            self.mean[j] += (mean - self.mean[j]) * count / total;
        }
        self.seen = total;
        self.svd = Some(svd);
        Ok(true)
    }

    /// Returns the components as rows, the strongest first, in the order of `ratios`; none before the first batch.
    pub fn components(&self) -> Option<MatRef<'_, f64>> {
        self.svd.as_ref().map(|svd| svd.vt.as_ref())
    }

    /// Returns each component's share of the total variance.
    pub fn ratios(&self) -> Vec<f64> {
        let whole: f64 = self.spread.iter().sum();
        self.svd.iter().flat_map(|svd| svd.s.iter().map(|s| s * s / whole)).collect()
    }

    pub fn singular_values(&self) -> &[f64] {
        self.svd.as_ref().map_or(&[], |svd| &svd.s)
    }

    /// Returns the cosine similarities; empty until the second batch.
    pub fn similarity(&self) -> &[f64] {
        &self.similarity
    }
}

fn cosine<'a>(a: impl Iterator<Item = &'a f64>, b: impl Iterator<Item = &'a f64>) -> f64 {
    let (mut dot, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.zip(b) {
        dot += x * y;
        aa += x * x;
        bb += y * y;
    }
    dot / (aa * bb).sqrt()
}
