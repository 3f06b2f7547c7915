//! Quantisation: the bits of references where they exist, and its error.

use safetensors::SafeTensors;

use super::read_goldens;
use crate::quant::{BlockType, nf4, pack};
use crate::random::Stream;
use crate::testing::{hash_values, unpack_all};

/// The values of `test/parity/quantised.py`.
fn draw_values(name: &str, size: usize) -> Vec<f32> {
    let drawn = hash_values(name, size);
    let factor = |i: usize| (i / 32 * 7 % 11) as f32 / 64.0;
    drawn.iter().enumerate().map(|(i, v)| *v as f32 * factor(i)).collect()
}

fn pack_values(kind: BlockType, values: &[f32]) -> Vec<u8> {
    pack::pack(kind, values.len(), &|at, out| out.copy_from_slice(&values[at..at + out.len()])).unwrap()
}

#[test]
fn quantised_weights_have_the_bits_of_the_references() {
    let bytes = read_goldens("quantised");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (kind, name, size) in [
        (BlockType::Q8_0, "quantised", 1024),
        (BlockType::Q4_0, "quantised", 1024),
        (BlockType::Nf4, "nf4", 64 * 600),
    ] {
        let expected = file.tensor(kind.as_str()).unwrap().data().to_vec();
        let got = pack_values(kind, &draw_values(name, size));
        assert_eq!(got.len(), expected.len());
        let off = got.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!(
            off,
            None,
            "{kind}: {} bytes differ",
            got.iter().zip(&expected).filter(|(a, b)| a != b).count()
        );
    }
}

fn pack_values_for_file(kind: BlockType, x: &[f32]) -> Vec<u8> {
    pack::pack_for_file(kind, x.len(), &|at, out| out.copy_from_slice(&x[at..at + out.len()])).unwrap()
}

/// The bits of ggml's library: `test/parity/quantised.py`.
#[test]
fn blocks_for_files_have_the_bits_of_ggml() {
    let bytes = read_goldens("quantised");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let x = draw_values("blocks", 16384);
    for kind in pack::FILE_TYPES {
        let expected = file.tensor(&format!("ggml.{kind}")).unwrap().data().to_vec();
        let got = pack_values_for_file(kind, &x);
        assert_eq!(got.len(), expected.len());
        let blocks =
            got.chunks(kind.bytes()).zip(expected.chunks(kind.bytes())).zip(x.chunks(kind.elements()));
        for (i, ((got, expected), x)) in blocks.enumerate() {
            // For a block of zeros, ggml's library and gguf-py differ in the sign of the scale.
            let zeros = |values: &[f32]| values.iter().all(|v| *v == 0.0);
            assert!(got == expected || zeros(x) && zeros(&unpack_all(kind, got)), "{kind}: block {i}");
        }
    }
}

#[test]
fn constant_blocks_round_trip_and_bad_values_are_refused() {
    for kind in pack::FILE_TYPES {
        assert_eq!(unpack_all(kind, &pack_values_for_file(kind, &[0.0; 256])), [0.0; 256], "{kind}");
        let got = unpack_all(kind, &pack_values_for_file(kind, &[0.5; 256]));
        assert!(got.iter().all(|v| (v - 0.5).abs() < 2e-3), "{kind}: {}", got[0]);
        for bad in [f32::NAN, f32::INFINITY, 1e30] {
            let read = |_: usize, out: &mut [f32]| {
                out.fill(0.25);
                out[3] = bad;
            };
            let error = pack::pack_for_file(kind, 256, &read).unwrap_err().to_string();
            assert!(error.ends_with(&format!("than a scale of {kind} can be")), "{error}");
        }
    }
}

fn sum_squared_errors(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (*a as f64 - *b as f64).powi(2)).sum()
}

/// The reference's formula: scales and minima from each run's extremes, rounded to 6 bits.
fn quantise_by_extremes(x: &[f32]) -> Vec<f32> {
    let runs: Vec<_> = x.chunks(32).collect();
    let low = |run: &[f32]| run.iter().fold(0f32, |m, v| m.min(*v));
    let high = |run: &[f32]| run.iter().fold(0f32, |m, v| m.max(*v));
    let half = |v: f32| half::f16::from_f32(v).to_f32();
    let most = |of: &dyn Fn(&[f32]) -> f32| half(runs.iter().fold(0f32, |m, run| m.max(of(run))) / 63.0);
    let (d, e) = (most(&|run| (high(run) - low(run)) / 15.0), most(&|run| -low(run)));
    let whole = |v: f32, unit: f32| if unit > 0.0 { (v / unit).round() * unit } else { 0.0 };
    let of = |run: &&[f32]| {
        let (s, m) = (whole((high(run) - low(run)) / 15.0, d), whole(-low(run), e));
        let code = |v: f32| if s > 0.0 { ((v + m) / s).round().clamp(0.0, 15.0) } else { 0.0 };
        run.iter().map(|v| s * code(*v) - m).collect::<Vec<_>>()
    };
    runs.iter().flat_map(of).collect()
}

#[test]
fn q4_k_has_a_smaller_error_than_scaling_by_extremes() {
    let mut sums = [0.0, 0.0];
    for seed in 0..20 {
        let normal = Stream { seed, counter: 0 }.normal(256, 0.01 * seed as f64, 0.02);
        let got = unpack_all(BlockType::Q4K, &pack_values(BlockType::Q4K, &normal));
        let (own, ends) =
            (sum_squared_errors(&got, &normal), sum_squared_errors(&quantise_by_extremes(&normal), &normal));
        assert!(own <= ends, "{own} is more than {ends}");
        sums = [sums[0] + own, sums[1] + ends];
    }
    // 0.827; without the second search among 6-bit values it is 0.833, and 0.887 with a single rounding.
    assert!(sums[0] < 0.83 * sums[1], "{}", sums[0] / sums[1]);
    // Values of 4 bits are exact, except for f16's rounding of the scale: 2^-12 of values up to 7.5.
    let steps: Vec<f32> = (0..256).map(|i| (i % 16) as f32 * 0.5 - 1.5).collect();
    let got = unpack_all(BlockType::Q4K, &pack_values(BlockType::Q4K, &steps));
    let rounding = 256.0 * (7.5f64 * 2f64.powi(-12)).powi(2);
    assert!(sum_squared_errors(&got, &steps) < rounding, "{}", sum_squared_errors(&got, &steps));
    assert_eq!(unpack_all(BlockType::Q4K, &pack_values(BlockType::Q4K, &[0.0; 256])), [0.0; 256]);
}

#[test]
fn ties_between_codes_round_like_the_references() {
    // The largest makes the scale 1.
    let mut x = [0f32; 32];
    x[..6].copy_from_slice(&[127.0, 0.5, 1.5, 2.5, -0.5, -2.5]);
    assert_eq!(
        pack_values(BlockType::Q8_0, &x)[2..8].iter().map(|c| *c as i8).collect::<Vec<_>>(),
        [127, 1, 2, 3, -1, -3]
    );
    x[..6].copy_from_slice(&[-8.0, 0.5, 1.5, -0.5, -1.5, 7.75]);
    let codes = pack_values(BlockType::Q4_0, &x)[2..8].iter().map(|c| *c & 15).collect::<Vec<_>>();
    assert_eq!(codes, [0, 9, 10, 8, 7, 15]);
    for (i, pair) in nf4::TABLE.windows(2).enumerate() {
        let [low, half] = [pair[0], (pair[0] + pair[1]) / 2.0];
        assert_eq!([low, half, half.next_up()].map(pack::find_nearest_code), [i as u8, i as u8, i as u8 + 1]);
    }
    assert_eq!([-2.0, 2.0].map(pack::find_nearest_code), [0, 15]);
}

#[test]
fn e4m3_encoding_rounds_to_nearest_even() {
    for code in 0..126u8 {
        let [v, next] = [code, code + 1].map(nf4::decode_e4m3);
        // By the definition: 4 bits of exponent with bias 7, 3 bits of mantissa.
        let exponent = (code >> 3) as i32;
        let mantissa = (code & 7) as f32 / 8.0 + if exponent > 0 { 1.0 } else { 0.0 };
        assert_eq!(v, mantissa * 2f32.powi(exponent.max(1) - 7));
        let half = (v + next) / 2.0;
        for (x, expected) in
            [(v, code), (half.next_down(), code), (half, code + (code & 1)), (half.next_up(), code + 1)]
        {
            assert_eq!(pack::encode_e4m3(x), expected, "{x}");
            assert_eq!(pack::encode_e4m3(-x), expected | 128, "{x}");
        }
    }
    assert_eq!([449.0, 464.0, 1e9].map(pack::encode_e4m3), [126; 3]);
}

/// Enough elements for several threads, each with a separate part.
#[test]
fn packing_on_several_threads_equals_packing_by_parts() {
    for kind in [BlockType::Q8_0, BlockType::Q4_0, BlockType::Q4K] {
        let elements = (256 << 10) / kind.bytes() * kind.elements();
        let x = draw_large_values(elements);
        let whole = pack_values(kind, &x);
        for (i, part) in x.chunks(64 * kind.elements()).enumerate().step_by(17) {
            let expected = pack_values(kind, part);
            assert_eq!(whole[i * 64 * kind.bytes()..][..expected.len()], expected, "{kind}: part {i}");
        }
    }
    // nf4 stores the mean of all scales, so its values are compared instead.
    let x = draw_large_values(64 * 70_000);
    let got = unpack_all(BlockType::Nf4, &pack_values(BlockType::Nf4, &x));
    let blocks: Vec<_> = x.chunks(64).zip(got.chunks(64)).collect();
    let scale = |x: &[f32]| x.iter().fold(0f32, |m, v| m.max(v.abs()));
    let mean = blocks.iter().map(|(x, _)| scale(x)).sum::<f32>() / blocks.len() as f32;
    for (i, (x, got)) in blocks.into_iter().enumerate() {
        let off = x.iter().zip(got).fold(0f32, |m, (x, got)| m.max((x - got).abs()));
        // The rounding of the scale to 3 bits of mantissa, and half of the table's widest gap.
        let rounded = (scale(x) - mean).abs() / 16.0;
        assert!(off <= rounded + 0.153 * (scale(x) + rounded), "block {i}: {off} of {}", scale(x));
    }
}

/// Values whose size varies from block to block and from run to run.
fn draw_large_values(count: usize) -> Vec<f32> {
    let mut state = 1u32;
    let value = |i: usize| {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * (1.0 + (i / 32 % 7) as f32)
    };
    (0..count).map(value).collect()
}

#[test]
fn non_finite_values_are_refused() {
    for kind in pack::TRAINING_TYPES {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vec![0.5; 512];
            values[300] = bad;
            let read = |at: usize, out: &mut [f32]| out.copy_from_slice(&values[at..at + out.len()]);
            let error = pack::pack(kind, 512, &read).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("it holds values that are not finite, or larger than a scale of {kind} can be"),
                "{bad}"
            );
        }
    }
}
