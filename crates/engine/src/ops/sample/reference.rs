//! The reference: in f64, by sorting.

use super::Sample;

/// Returns the probability of each token, after `options` excluded some.
pub fn compute_probabilities(options: &Sample, logits: &[f64], seen: Option<&[bool]>) -> Vec<f64> {
    let penalty = options.repetition_penalty;
    let score = |(i, l): (usize, &f64)| match seen {
        Some(seen) if seen[i] => {
            if *l < 0.0 {
                l * penalty
            } else {
                l / penalty
            }
        }
        _ => *l,
    };
    let scores: Vec<f64> = logits.iter().enumerate().map(score).collect();
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weight = |s: f64| if s == top { 1.0 } else { ((s - top) / options.temperature).exp() };
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let mut kept: Vec<bool> = vec![true; scores.len()];
    if (1..scores.len()).contains(&options.top_k) {
        let last = scores[order[options.top_k - 1]];
        kept.iter_mut().zip(&scores).for_each(|(k, s)| *k = *s >= last);
    }
    let all: f64 = (0..scores.len()).filter(|i| kept[*i]).map(|i| weight(scores[i])).sum();
    let mut before = 0.0;
    let mut last = f64::NEG_INFINITY;
    for i in order.iter().copied().filter(|i| kept[*i]) {
        last = scores[i];
        before += weight(last);
        if before >= options.top_p * all {
            break;
        }
    }
    kept.iter_mut().zip(&scores).for_each(|(k, s)| *k &= *s >= last && weight(*s) >= options.min_p);
    let weights: Vec<f64> =
        scores.iter().zip(&kept).map(|(s, k)| if *k { weight(*s) } else { 0.0 }).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

/// Returns the token for `word`, and the word's margin to the next token.
pub fn compute_reference(options: &Sample, logits: &[f64], seen: Option<&[bool]>, word: u64) -> (usize, f64) {
    if options.temperature == 0.0 {
        let nearly = Sample { temperature: 1e-300, ..*options };
        let first = compute_probabilities(&nearly, logits, seen).iter().position(|p| *p > 0.0);
        return (first.unwrap(), 1.0);
    }
    let mut left = word as f64 / 2f64.powi(64);
    let probabilities = compute_probabilities(options, logits, seen);
    let mut last = 0;
    for (i, p) in probabilities.iter().enumerate().filter(|(_, p)| **p > 0.0) {
        if left < *p {
            return (i, left.min(p - left));
        }
        left -= p;
        last = i;
    }
    (last, 0.0)
}
