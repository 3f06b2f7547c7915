//! Autotuning of products: their classes, and a sample product for each class.

use std::rc::Rc;

use super::plan::{self, AccessPatterns, Config, list_candidates};
use super::{Gemm, Matrix, Segment, append};
use crate::context::Context;
use crate::device::{Sink, cpu};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::Params;
use crate::problem::{Problem, make_operand};
use crate::tune::{BYTES, Class, Extent, Family, Words, size_class};

pub static FAMILY: Family = Family {
    name: "gemm",
    class: describe,
    describe: describe_variant,
    trial: |profile, words, extent| Problem::make_trial(profile, |cx| make_problem(cx, words, extent)),
    usual: list_usual_products,
};

/// Most parts of a split sum.
const MOST_PARTS: usize = 16;
/// Terms of the second segment in a trial.
const RANK: usize = 16;

/// The class of a product: the properties that may change which variant is fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ProductClass {
    /// Size classes of each dimension.
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
    /// Whether A, and B, is row-major.
    a_rows: bool,
    b_rows: bool,
    /// Whether the matrices of a batch share B.
    shares_b: bool,
    b: DType,
    /// The access patterns of the factors.
    reads: AccessPatterns,
    bias: bool,
    /// Whether the sum has a second segment.
    two: bool,
    /// Whether the factors are rounded to f16.
    in_f16: bool,
}

impl ProductClass {
    fn to_words(self) -> Words {
        let bits = [self.a_rows, self.b_rows, self.shares_b, self.bias, self.two, self.in_f16];
        let flags = bits.iter().rev().fold(0, |word, bit| word << 1 | *bit as u32);
        let b = match self.b {
            DType::F16 => 1,
            DType::BF16 => 2,
            DType::F32 | DType::I32 | DType::Block(_) => 0,
        };
        [self.batch as u32, self.m as u32, self.n as u32, self.k as u32, flags, b, self.reads.index(), 0]
    }

    fn from_words(words: &Words) -> ProductClass {
        let [batch, m, n, k, flags, b, reads, _] = *words;
        let bit = |at: u32| flags >> at & 1 == 1;
        ProductClass {
            batch: batch as usize,
            m: m as usize,
            n: n as usize,
            k: k as usize,
            a_rows: bit(0),
            b_rows: bit(1),
            shares_b: bit(2),
            bias: bit(3),
            reads: AccessPatterns::from_index(reads),
            two: bit(4),
            in_f16: bit(5),
            b: [DType::F32, DType::F16, DType::BF16][b as usize % 3],
        }
    }

    /// Elements of A, B and C together.
    fn count_elements(&self) -> u64 {
        let [batch, m, n, k] = [self.batch, self.m, self.n, self.k].map(|v| v as u64);
        batch * (m * k + m * n) + if self.shares_b { 1 } else { batch } * n * k
    }

    fn count_flops(&self) -> u64 {
        2 * (self.batch * self.m * self.n) as u64 * (self.k + if self.two { RANK } else { 0 }) as u64
    }

    /// About half of `n`.
    fn halve(n: usize) -> usize {
        if n > 8 { (n / 2).next_multiple_of(4) } else { n.div_ceil(2) }
    }

    /// Makes the sides multiples of 4, or not multiples, as the class's access patterns require.
    fn fit_sides(self) -> ProductClass {
        let fours = self.reads != AccessPatterns::ELEMENTS;
        let odd = |n: usize| if fours || n < 4 { n } else { n - 1 };
        ProductClass { m: odd(self.m), n: odd(self.n), k: odd(self.k), ..self }
    }

    fn fit_extent(self, extent: Extent) -> ProductClass {
        let mut shape = self;
        match extent {
            // More than two blocks of the largest tile, and more than a few stages of the sum.
            Extent::Odd => {
                let ProductClass { batch, m, n, k, .. } = self;
                shape =
                    ProductClass { batch: batch.min(2), m: m.min(132), n: n.min(140), k: k.min(260), ..self };
            }
            Extent::Within { work } => {
                while shape.count_flops() > work.max(1) || 4 * shape.count_elements() > BYTES {
                    let ProductClass { batch, m, n, k, .. } = &mut shape;
                    // The number of terms is reduced last, since the timing measures its stages.
                    let largest = if *batch > 1 {
                        batch
                    } else if *m.max(n) > 128 || *k <= 64 {
                        if *m >= *n { m } else { n }
                    } else {
                        k
                    };
                    let halved = ProductClass::halve(*largest);
                    if halved >= *largest {
                        break;
                    }
                    *largest = halved;
                }
            }
        }
        shape.fit_sides()
    }
}

/// The class of a product.
pub fn classify(g: &Gemm, a: &Matrix, b: &Matrix, [bias, two]: [bool; 2]) -> Class {
    let side = |n: usize| size_class(n) as usize;
    let shape = ProductClass {
        batch: side(g.batch),
        m: side(g.m),
        n: side(g.n),
        k: side(g.k),
        a_rows: a.column == 1,
        b_rows: b.column == 1,
        shares_b: b.batch == 0,
        b: b.value.dtype,
        reads: AccessPatterns::choose(g, a, b, bias || two || plan::is_in_f16(g, b)),
        bias,
        two,
        in_f16: plan::is_in_f16(g, b),
    };
    Class { family: &FAMILY, words: shape.to_words() }
}

fn describe(words: &Words) -> String {
    let shape = ProductClass::from_words(words);
    let ProductClass { batch, m, n, k, .. } = shape;
    let mut text = if batch > 1 { format!("{batch} of ") } else { String::new() };
    text += &format!("{m} x {n} x {k}");
    text += if shape.two { " + r" } else { "" };
    text += if shape.bias { " + bias" } else { "" };
    text += if shape.a_rows { ", A" } else { ", A^T" };
    text += if shape.b_rows { " B" } else { " B^T" };
    text += if batch > 1 && shape.shares_b { " (one)" } else { "" };
    text += match shape.b {
        DType::F16 => " f16",
        DType::BF16 => " bf16",
        DType::F32 | DType::I32 | DType::Block(_) => " f32",
    };
    text += if shape.in_f16 { ", in f16" } else { "" };
    text + match shape.reads.index() {
        0 => ", by elements",
        _ => "",
    }
}

fn describe_variant(params: Params) -> String {
    Config::from_params(params).describe().join(", ")
}

fn make_problem(cx: &Rc<Context>, words: &Words, extent: Extent) -> Result<Problem> {
    let shape = ProductClass::from_words(words).fit_extent(extent);
    let ProductClass { batch, m, n, k, two, .. } = shape;
    let b_batch = if shape.shares_b { 1 } else { batch };
    let a = make_operand(cx, [batch * m * k], DType::F32, 1)?;
    let b = make_operand(cx, [b_batch * n * k], shape.b, 2)?;
    let more = match two {
        true => {
            Some([make_operand(cx, [m * RANK], DType::F32, 3)?, make_operand(cx, [n * RANK], DType::F32, 4)?])
        }
        false => None,
    };
    let bias = if shape.bias { Some(make_operand(cx, [n], DType::F32, 6)?) } else { None };
    let c = make_operand(cx, [batch * m * n], DType::F32, 5)?;
    let (cx, output, work) = (cx.clone(), c.clone(), shape.count_flops());
    let run = move |params: Params| {
        let factor_a = |value, k: usize| {
            Matrix::new(value, if shape.a_rows { k } else { m }).transposed_if(!shape.a_rows)
        };
        let factor_b = |value, k: usize| {
            Matrix::new(value, if shape.b_rows { n } else { k }).transposed_if(!shape.b_rows)
        };
        let left = factor_a(&a, k).with_batch_stride(m * k);
        let right = factor_b(&b, k).with_batch_stride(if shape.shares_b { 0 } else { n * k });
        let second = more.as_ref().map(|[a2, b2]| Segment {
            a: Matrix::new(a2, RANK),
            b: factor_b(b2, RANK),
            k: RANK,
            alpha: 2.0,
        });
        let g = Gemm::new(m, n, k).batch(batch);
        let c = Matrix::new(&c, n).with_batch_stride(m * n);
        append(&cx, Config::from_params(params), g, left, right, bias.as_ref(), second, c)
    };
    Ok(Problem { run: Box::new(run), output, work })
}

/// The products of a training step of SmolLM2-135M (4 × 512 tokens, rank 16 on all linears) and of its decoding.
fn list_usual_products() -> Vec<(Words, Vec<Params>)> {
    // Values without storage: variants are chosen by shape.
    let cx = Context::new(cpu::make_profile(1), Sink::Meta);
    let (rows, rank) = (2048, RANK);
    let layers = [(576, 576), (576, 192), (576, 1536), (1536, 576), (576, 49_152)];
    let mut found: Vec<(Words, Vec<Params>)> = Vec::new();
    let mut product = |[m, n, k]: [usize; 3], [trans_a, trans_b]: [bool; 2], dtype: DType, two: bool| {
        let fitted = [(m * k, DType::F32), (n * k, dtype), (m * n * MOST_PARTS, DType::F32)];
        let [Ok(a), Ok(b), Ok(c)] = fitted.map(|(size, dtype)| cx.empty([size], dtype)) else { return };
        let mut left = Matrix::new(&a, if trans_a { m } else { k }).transposed_if(trans_a);
        let mut right = Matrix::new(&b, if trans_b { k } else { n }).transposed_if(trans_b);
        let mut to = Matrix::new(&c, n);
        let mut g = Gemm::new(m, n, k);
        // For a split sum, the variant applies to the parts.
        let part = plan::choose_part(&g, &left, &right);
        if part < k {
            g = Gemm::new(m, n, part).batch(k / part);
            (left, right) =
                (left.with_batch_stride(part * left.column), right.with_batch_stride(part * right.row));
            to = to.with_batch_stride(m * n);
        }
        let more = [false, two && part == k];
        let words = classify(&g, &left, &right, more).words;
        let configs = list_candidates(&g, &left, &right, &to, more, false);
        let configs: Vec<Params> = configs.iter().map(|config| config.params()).collect();
        if configs.len() > 1 && found.iter().all(|(seen, _)| *seen != words) {
            found.push((words, configs));
        }
    };
    for dtype in [DType::F32, DType::F16] {
        for (inputs, outputs) in layers {
            // y = x·Wᵀ + h·Bᵀ (without the low-rank part for lm_head); dX = dY·W; a decoded token.
            product([rows, outputs, inputs], [false, true], dtype, outputs < 49_152);
            product([rows, inputs, outputs], [false, false], dtype, false);
            product([1, outputs, inputs], [false, true], dtype, false);
        }
    }
    for (inputs, outputs) in &layers[..4] {
        // h = x·Aᵀ, dH = dY·B, dB = dYᵀ·h, dA = dHᵀ·x.
        product([rows, rank, *inputs], [false, true], DType::F32, false);
        product([rows, rank, *outputs], [false, false], DType::F32, false);
        product([*outputs, rank, rows], [true, false], DType::F32, false);
        product([rank, *inputs, rows], [true, false], DType::F32, false);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::checks::{contexts, read};
    use crate::profile::Kind;

    #[test]
    fn classes_round_trip_through_words_and_have_unique_names() {
        let mut names = std::collections::HashSet::new();
        for (words, configs) in list_usual_products() {
            assert_eq!(ProductClass::from_words(&words).to_words(), words);
            assert!(names.insert(describe(&words)), "{}", describe(&words));
            assert!(configs.len() > 1);
        }
        assert!(names.len() > 10, "{names:?}");
    }

    /// The choice of a variant changes no bit.
    #[test]
    fn interchangeable_variants_give_the_same_bits() {
        let large = |cx: &Rc<Context>| cx.profile.kind == Kind::Gpu && cx.profile.binding_limit > 1 << 20;
        for cx in contexts().into_iter().filter(large) {
            for ([m, n, k], trans_b, dtype) in [
                ([3, 70, 130], true, DType::F32),
                ([8, 37, 65], true, DType::F16),
                ([17, 130, 31], false, DType::F32),
                ([70, 33, 65], true, DType::BF16),
                ([133, 141, 259], true, DType::F32),
                ([40, 24, 300], false, DType::F32),
            ] {
                let [a, b] = [(m, DType::F32, 1), (n, dtype, 2)]
                    .map(|(side, dtype, seed)| make_operand(&cx, [side * k], dtype, seed).unwrap());
                let right = Matrix::new(&b, if trans_b { k } else { n }).transposed_if(trans_b);
                let (g, left) = (Gemm::new(m, n, k), Matrix::new(&a, k));
                let c = make_operand(&cx, [m * n], DType::F32, 3).unwrap();
                let subgroups = cx.profile.subgroup > 0;
                let configs = list_candidates(&g, &left, &right, &Matrix::new(&c, n), [false; 2], subgroups);
                assert!(configs.len() > 1 || (configs[0].is_for_few_rows() && !subgroups), "{m} x {n} x {k}");
                let fitted = configs.iter().map(|config| {
                    let c = make_operand(&cx, [m * n], DType::F32, 3).unwrap();
                    append(&cx, *config, g, left, right, None, None, Matrix::new(&c, n)).unwrap();
                    read(&c).data
                });
                let fitted: Vec<_> = fitted.collect();
                for (config, other) in configs.iter().zip(&fitted) {
                    assert!(*other == fitted[0], "{config:?} for {:?} at {m} x {n} x {k}", configs[0]);
                }
            }
        }
    }

    #[test]
    fn trials_stay_within_the_requested_extent() {
        for (words, _) in list_usual_products() {
            let class = ProductClass::from_words(&words);
            for work in [0, 1 << 20, 1 << 24, 1 << 34, u64::MAX] {
                let fitted = class.fit_extent(Extent::Within { work });
                assert!(4 * fitted.count_elements() <= BYTES, "{fitted:?}");
                let is_smallest = fitted.m <= 128 && fitted.n <= 128 && fitted.k <= 64;
                assert!(fitted.count_flops() <= work.max(1) || is_smallest, "{fitted:?} for {work}");
            }
            let odd = class.fit_extent(Extent::Odd);
            assert!(odd.m <= 132 && odd.n <= 140 && odd.k <= 260, "{odd:?}");
        }
    }
}
