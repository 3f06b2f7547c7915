use lowrank_cpu::quant::BlockType;

use super::{LoraLinear, Path, RowRange, reference::compute_reference};
use crate::context::{Spec, Value};
use crate::dtype::DType;
use crate::kernels::gemm::Precision;
use crate::op::{Backward, Op, run, run1};
use crate::ops::checks::{
    Array, TOLERANCE, check, check_non_finite, compare, compare_quantised, contexts, read, upload_quantised,
};
use crate::ops::dropout::Dropout;
use crate::ops::linear::Linear;

/// alpha != r: the scale is not 1.
const SCALE: f32 = 1.75;

fn with_path(fan_in_fan_out: bool, path: Path) -> LoraLinear {
    LoraLinear { fan_in_fan_out, paths: vec![path], ..LoraLinear::default() }
}

fn make_op(fan_in_fan_out: bool) -> LoraLinear {
    with_path(fan_in_fan_out, Path::whole(SCALE, Dropout::default()))
}

fn draw_inputs(op: &LoraLinear, rows: &[usize], [features, out, rank]: [usize; 3], bias: bool) -> Vec<Array> {
    let weight = if op.fan_in_fan_out { [features, out] } else { [out, features] };
    let mut inputs = vec![
        Array::random("x", &[rows, &[features]].concat()),
        Array::random("weight", &weight),
        Array::random("a", &[rank, features]),
        Array::random("b", &[out, rank]),
    ];
    inputs.extend(bias.then(|| Array::random("bias", &[out])));
    inputs
}

#[test]
fn equals_the_reference() {
    for fan_in_fan_out in [false, true] {
        let op = &make_op(fan_in_fan_out);
        for n in [1, 63, 64, 65, 257] {
            for sizes in [[5, 3, 2], [n, 4, 3], [3, n, 2], [7, 5, n]] {
                check(op, &draw_inputs(op, &[3], sizes, n % 2 == 0), &|x| compute_reference(op, x));
            }
            check(op, &draw_inputs(op, &[n], [6, 5, 4], true), &|x| compute_reference(op, x));
        }
        check(op, &draw_inputs(op, &[2, 17], [65, 33, 16], true), &|x| compute_reference(op, x));
    }
}

#[test]
fn frozen_half_weights_equal_the_reference() {
    for dtype in [DType::F16, DType::BF16] {
        for fan_in_fan_out in [false, true] {
            let op = &make_op(fan_in_fan_out);
            let mut inputs = draw_inputs(op, &[9], [63, 65, 8], true);
            inputs[super::WEIGHT] = inputs[super::WEIGHT].stored(dtype);
            check(op, &inputs, &|x| compute_reference(op, x));
        }
    }
}

#[test]
fn dropout_affects_only_the_low_rank_path() {
    for p in [0.3, 1.0] {
        let path = Path::whole(SCALE, Dropout { p, seed: 3, offset: 5 });
        let op = &LoraLinear { paths: vec![path], ..make_op(false) };
        for rows in [1, 65] {
            check(op, &draw_inputs(op, &[rows], [33, 17, 8], true), &|x| compute_reference(op, x));
        }
        check(op, &draw_inputs(op, &[2, 3], [63, 64, 1], false), &|x| compute_reference(op, x));
    }
}

#[test]
fn equals_the_composed_operations() {
    use crate::kernels::elementwise::Function::{Add, Mul};
    use crate::ops::binary::Binary;
    for cx in contexts() {
        for bias in [false, true] {
            let inputs = draw_inputs(&make_op(false), &[37], [65, 33, 16], bias);
            let values: Vec<Value> = inputs.iter().map(|x| x.upload(&cx)).collect();
            let v: Vec<&Value> = values.iter().collect();
            let fused = &run(&cx, &make_op(false), &v).unwrap()[0];
            let dense = run1(&cx, &Linear::default(), &[&[v[0], v[1]], &v[4..]].concat()).unwrap();
            let h = run1(&cx, &Linear::default(), &[v[0], v[2]]).unwrap();
            let low_rank = run1(&cx, &Linear::default(), &[&h, v[3]]).unwrap();
            let scale = Array::new(&[], vec![SCALE as f64]).upload(&cx);
            let low_rank = run1(&cx, &Binary(Mul), &[&low_rank, &scale]).unwrap();
            let composed = run1(&cx, &Binary(Add), &[&dense, &low_rank]).unwrap();
            let what = format!("composed on {}", cx.profile.label);
            crate::ops::checks::compare(&what, &read(fused), &read(&composed), 1e-6);
        }
    }
}

#[test]
fn a_new_adapter_changes_no_bit() {
    for cx in contexts() {
        for bias in [false, true] {
            let mut inputs = draw_inputs(&make_op(false), &[37], [65, 33, 16], bias);
            inputs[super::b_index(0)] = inputs[super::b_index(0)].map(|_| 0.0);
            let values: Vec<Value> = inputs.iter().map(|x| x.upload(&cx)).collect();
            let v: Vec<&Value> = values.iter().collect();
            let adapted = read(&run(&cx, &make_op(false), &v).unwrap()[0]);
            let dense = run1(&cx, &Linear::default(), &[&[v[0], v[1]], &v[4..]].concat()).unwrap();
            assert_eq!(adapted.data, read(&dense).data, "on {}", cx.profile.label);
        }
    }
}

#[test]
fn a_frozen_weight_needs_no_launch() {
    for cx in contexts() {
        let values: Vec<Value> =
            draw_inputs(&make_op(false), &[5], [6, 7, 2], false).iter().map(|x| x.upload(&cx)).collect();
        let outputs = run(&cx, &make_op(false), &values.iter().collect::<Vec<_>>()).unwrap();
        let needs = [true, false, true, true];
        let before = cx.launches();
        let d = vec![Some(outputs[0].clone()), None];
        let d_inputs = make_op(false)
            .backward(&cx, &Backward::after(&make_op(false), &values, &outputs, &needs, d))
            .unwrap();
        assert!(d_inputs[super::WEIGHT].is_none());
        // Z, dX with both of its parts, dA and dB.
        assert_eq!(cx.launches() - before, 4);
    }
}

#[test]
fn non_finite_values_reach_their_rows_and_columns() {
    let op = &make_op(false);
    for v in [f64::NAN, f64::INFINITY] {
        for operand in 0..5 {
            let mut inputs = draw_inputs(op, &[5], [6, 7, 3], true);
            inputs[operand].data[4] = v;
            check_non_finite(op, &inputs, &|x| compute_reference(op, x));
        }
    }
}

#[test]
fn mismatched_shapes_are_refused() {
    let specs = [[2, 5], [4, 5], [3, 6], [4, 3]].map(Spec::f32);
    let message = make_op(false).outputs(&specs.iter().collect::<Vec<_>>()).unwrap_err().message;
    assert!(message.contains("[3, 6] and [4, 3] do not fit 5 inputs and 4 outputs"), "{message}");
}

/// Returns inputs for a dense layer and paths of `ranks` (the rank of one window each).
fn draw_path_inputs(
    op: &LoraLinear,
    rows: &[usize],
    [features, out]: [usize; 2],
    ranks: &[[usize; 2]],
) -> Vec<Array> {
    let mut all = vec![
        Array::random("x", &[rows, &[features]].concat()),
        Array::random("weight", &if op.fan_in_fan_out { [features, out] } else { [out, features] }),
    ];
    for (i, ([rank, width], path)) in ranks.iter().zip(&op.paths).enumerate() {
        let groups = path.windows.len().max(1);
        all.push(Array::random(&format!("a{i}"), &[groups * rank, features]));
        all.push(Array::random(&format!("b{i}"), &[groups * width, *rank]));
    }
    all.push(Array::random("bias", &[out]));
    all
}

#[test]
fn output_windows_equal_the_reference() {
    for (len, enabled) in [(1, vec![0]), (2, vec![1]), (3, vec![0, 2]), (3, vec![0, 1, 2]), (4, vec![3, 0])] {
        for [rows, features, width, rank] in
            [[1, 5, 3, 2], [5, 63, 2, 4], [65, 7, 64, 1], [3, 257, 65, 8], [64, 64, 1, 16]]
        {
            for fan_in_fan_out in [false, true] {
                let windows = enabled.iter().map(|i| i * width).collect();
                let path = Path { windows, ..Path::whole(SCALE, Dropout::default()) };
                let op = with_path(fan_in_fan_out, path);
                let inputs = draw_path_inputs(&op, &[rows], [features, len * width], &[[rank, width]]);
                check(&op, &inputs, &|x| compute_reference(&op, x));
            }
        }
    }
}

#[test]
fn paths_with_row_ranges_equal_the_reference() {
    let make_range = |start, count| RowRange { start, count, stream: start as u64 };
    for p in [0.0, 0.4] {
        let path = |scale, row_ranges: &[RowRange]| Path {
            row_ranges: row_ranges.to_vec(),
            ..Path::whole(scale, Dropout { p, seed: 9, offset: 1 })
        };
        let whole = path(0.5, &[]);
        for [n, features, out] in [[1, 5, 4], [21, 33, 65], [64, 3, 2], [65, 257, 1]] {
            // Three paths side by side, with unused rows between them; one has two row_ranges.
            let op = LoraLinear {
                fan_in_fan_out: n == 64,
                paths: vec![
                    path(1.5, &[make_range(0, n), make_range(2 * n, n)]),
                    path(-2.0, &[make_range(3 * n, 2 * n)]),
                    whole.clone(),
                ],
                ..LoraLinear::default()
            };
            let inputs = draw_path_inputs(&op, &[6, n], [features, out], &[[3, out], [8, out], [1, out]]);
            check(&op, &inputs, &|x| compute_reference(&op, x));
        }
    }
}

#[test]
fn rows_without_a_path_are_bit_identical_to_the_dense_layer() {
    for cx in contexts() {
        let path = Path {
            row_ranges: vec![RowRange { start: 3, count: 5, stream: 0 }],
            ..Path::whole(SCALE, Dropout::default())
        };
        let op = with_path(false, path);
        let inputs = draw_path_inputs(&op, &[12], [65, 33], &[[4, 33]]);
        let values: Vec<Value> = inputs.iter().map(|x| x.upload(&cx)).collect();
        let v: Vec<&Value> = values.iter().collect();
        let adapted = read(&run(&cx, &op, &v).unwrap()[0]).data;
        let dense = read(&run1(&cx, &Linear::default(), &[v[0], v[1], v[4]]).unwrap()).data;
        assert_eq!((&adapted[..99], &adapted[264..]), (&dense[..99], &dense[264..]), "{}", cx.profile.label);
        assert!(adapted[99..264].iter().zip(&dense[99..264]).all(|(a, d)| a != d), "{}", cx.profile.label);
    }
}

#[test]
fn row_ranges_and_windows_out_of_bounds_are_refused() {
    let get_error = |path: Path, b: [usize; 2]| {
        let specs = [[6, 5], [8, 5], [4, 5], b].map(Spec::f32);
        let op = with_path(false, path);
        op.outputs(&specs.iter().collect::<Vec<_>>()).unwrap_err().message
    };
    let whole = Path::whole(1.0, Dropout::default());
    let make_range = |start, count| RowRange { start, count, stream: 0 };
    let message = get_error(Path { windows: vec![0, 6], ..whole.clone() }, [8, 2]);
    assert!(message.contains("8 outputs in 2 windows"), "{message}");
    for row_ranges in [vec![make_range(4, 3)], vec![make_range(0, 4), make_range(3, 1)]] {
        let message = get_error(Path { row_ranges, ..whole.clone() }, [8, 4]);
        assert!(message.contains("do not fit 6 rows"), "{message}");
    }
}

#[test]
fn low_rank_products_stay_exact_with_bf16_weights() {
    let op = make_op(false);
    let mut inputs = draw_inputs(&op, &[65], [63, 65, 8], true);
    inputs[super::WEIGHT] = inputs[super::WEIGHT].stored(DType::BF16);
    for cx in contexts() {
        let v: Vec<Value> = inputs.iter().map(|x| x.upload(&cx)).collect();
        // Returns h, and the low-rank path's contribution.
        let run_op = |precision: Precision| {
            let adapted =
                run(&cx, &LoraLinear { precision, ..op.clone() }, &v.iter().collect::<Vec<_>>()).unwrap();
            let linear = Linear { precision, ..Linear::default() };
            let dense = run1(&cx, &linear, &[&v[super::X], &v[super::WEIGHT], &v[4]]).unwrap();
            let dense = read(&dense).data;
            let y = read(&adapted[0]);
            let added = y.data.iter().zip(dense).map(|(y, dense)| y - dense).collect();
            [read(&adapted[1]), Array::new(&y.shape, added)]
        };
        let ([h, added], [exact_h, exact]) = (run_op(Precision::Bf16), run_op(Precision::Exact));
        assert_eq!(h.data, exact_h.data, "{}", cx.profile.label);
        compare(&cx.profile.label, &added, &exact, TOLERANCE);
    }
}

#[test]
fn quantised_weights_equal_their_unpacked_weights() {
    for cx in contexts() {
        for kind in BlockType::EVERY {
            for rows in [1, 37] {
                let mut values: Vec<Value> = draw_inputs(&make_op(false), &[rows], [256, 29, 6], true)
                    .iter()
                    .map(|x| x.upload(&cx))
                    .collect();
                let [stored, wide] = upload_quantised(&cx, kind, &[29, 256]);
                let d = Array::random("d", &[rows, 29]).upload(&cx);
                let mut run_op = |weight: Value| {
                    values[super::WEIGHT] = weight;
                    let y = run(&cx, &make_op(false), &values.iter().collect::<Vec<_>>()).unwrap();
                    let d = vec![Some(d.clone()), None];
                    let needs = [true, false, true, true, false];
                    let pass = Backward::after(&make_op(false), &values, &y, &needs, d);
                    let d_inputs = make_op(false).backward(&cx, &pass).unwrap();
                    [vec![y[0].clone()], d_inputs.into_iter().flatten().collect()].concat()
                };
                let (got, expected) = (run_op(stored), run_op(wide));
                assert_eq!(got.len(), 4);
                for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                    compare_quantised(&format!("{kind}, {rows} rows, {i}"), &cx, rows, got, expected);
                }
            }
        }
    }
}
