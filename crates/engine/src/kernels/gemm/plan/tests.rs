use super::*;
use crate::context::{Context, Value};
use crate::device::{Sink, cpu::Cpu};
use crate::kernels::gemm::in_f16;

/// Returns a value of `size` elements at an offset in a storage, on a meta device.
fn make_value(dtype: DType, offset: usize, size: usize) -> Value {
    let profile = Cpu::open(0).expect("a processor").0;
    let all = Context::new(profile, Sink::Meta).empty([offset + size], dtype).unwrap();
    all.sub_range(offset, [size])
}

#[test]
fn variants_round_trip_through_their_keys() {
    for b in [DType::F32, DType::F16] {
        for (bias, two) in [(false, false), (true, false), (false, true)] {
            let all = Config::list(b, bias, two);
            all.iter().for_each(|config| assert_eq!(Config::from_params(config.params()), *config));
            let keys: std::collections::HashSet<_> = all.iter().map(|config| config.params()).collect();
            assert_eq!(keys.len(), all.len(), "two variants have the same key");
        }
    }
    in_f16::list_configs()
        .for_each(|config| assert!(config.is_in_f16() && Config::from_params(config.params()) == config));
}

/// The guaranteed limits of WebGPU.
#[test]
fn tiles_stay_within_guaranteed_limits() {
    for tile in Tile::ALL.iter().chain(Tile::IN_F16) {
        assert!((64..=256).contains(&tile.threads()), "{tile:?}: {} invocations", tile.threads());
        assert!(tile.shared_bytes() <= 16 << 10, "{tile:?}: {} bytes", tile.shared_bytes());
    }
    let sums = columns::emit_body(MAX_COLUMN_ROWS as u32, false, "");
    assert!(sums.contains("array<vec4<f32>, 1024>"), "the sums of four rows by 256 invocations: 16 KiB");
    let sums = dots::emit_body(8, false, false, "");
    assert!(sums.contains("array<f32, 2048>"), "the sums of eight rows of four columns by 64 lanes: 8 KiB");
}

/// The counts in the shader's header match the tiles.
#[test]
fn the_documented_tile_table_matches_the_tiles() {
    let table: Vec<String> = include_str!("../shader.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! |"))
        .skip(2)
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>().join(" | "))
        .collect();
    assert_eq!(table.len(), Tile::ALL.len());
    for (row, tile) in table.iter().zip(Tile::ALL) {
        let Tile { rows, columns, depth, lane: [down, across], .. } = *tile;
        let flops = 2.0 * (rows * columns) as f64 / (4 * (rows + columns)) as f64;
        let fma = (down * across) as f64 / (down / 4 + across / 4) as f64;
        let registers = down * across + down + across + 24;
        let expected = format!(
            "{rows} × {columns} × {depth} | {down} × {across} | {} | {flops:.1} | {fma:.1} | {registers} | {:.1} KiB | ",
            tile.threads(),
            tile.shared_bytes() as f64 / 1024.0
        );
        assert_eq!(*row, expected);
        if (rows, columns) == (128, 128) {
            assert!(fma >= 8.0);
        }
    }
}

#[test]
fn vectors_need_multiples_of_4_in_sizes_starts_and_strides() {
    let choose = |[m, n, k]: [usize; 3], at: usize, trans: [bool; 2], step: usize| {
        let (a, b) = (make_value(DType::F32, at, m * k * 2), make_value(DType::F32, 0, n * k));
        let left = Matrix::new(&a, if trans[0] { m } else { k })
            .transposed_if(trans[0])
            .with_batch_stride(m * k + step);
        let right = Matrix::new(&b, if trans[1] { k } else { n }).transposed_if(trans[1]);
        AccessPatterns::choose(&Gemm::new(m, n, k).batch(2), &left, &right, false)
    };
    let [elements, terms, lines, both] = AccessPatterns::ALL;
    assert_eq!(choose([8, 12, 16], 0, [false, true], 0), terms);
    assert_eq!(choose([8, 12, 16], 0, [false, false], 0), lines);
    assert_eq!(choose([8, 12, 16], 0, [true, false], 0), both);
    // Both transposed: single elements.
    assert_eq!(choose([8, 12, 16], 0, [true, true], 0), elements);
    // The size along which nothing is read in vectors may be odd.
    assert_eq!(choose([7, 13, 16], 0, [false, true], 0), terms);
    assert_eq!(choose([8, 12, 15], 0, [true, false], 0), both);
    assert_eq!(choose([8, 12, 15], 0, [false, true], 0), elements);
    assert_eq!(choose([8, 13, 16], 0, [false, false], 0), elements);
    assert_eq!(choose([6, 12, 16], 0, [true, false], 0), elements);
    // Offsets of the value and of the batch's second matrix.
    assert_eq!(choose([8, 12, 16], 2, [false, true], 0), elements);
    assert_eq!(choose([8, 12, 16], 4, [false, true], 0), terms);
    assert_eq!(choose([8, 12, 16], 0, [false, true], 2), elements);
}

#[test]
fn the_shape_decides_the_order_of_sums() {
    let plan_product = |m: usize, n: usize, k: usize, trans_b: bool| {
        let (a, b, c) = (
            make_value(DType::F32, 0, m * k),
            make_value(DType::F32, 0, n * k),
            make_value(DType::F32, 0, m * n),
        );
        let right = Matrix::new(&b, if trans_b { k } else { n }).transposed_if(trans_b);
        let (g, left) = (Gemm::new(m, n, k), Matrix::new(&a, k));
        let all = |subgroups| list_candidates(&g, &left, &right, &Matrix::new(&c, n), [false; 2], subgroups);
        (all(false), all(true), choose_part(&g, &left, &right))
    };
    // Decoding: one variant, or two with equal bits.
    let (plain, subgroups, part) = plan_product(1, 576, 1536, true);
    assert_eq!(plain[..], [Config::Dots { rows: 1, wide: true, subgroups: false }]);
    assert_eq!(subgroups[..], [Config::Dots { rows: 1, wide: true, subgroups: true }, plain[0]]);
    assert_eq!(part, 1536);
    assert_eq!(plan_product(6, 576, 1536, true).0[0], Config::Dots { rows: 8, wide: true, subgroups: false });
    // A weight that is stored [in, out].
    let (columns, _, part) = plan_product(1, 768, 3072, false);
    assert_eq!((&columns[..], part), (&[Config::Columns { rows: 1, wide: true }][..], 3072));
    assert_eq!(plan_product(3, 767, 70, false).0[..], [Config::Columns { rows: 4, wide: false }]);
    assert!(
        !plan_product(5, 768, 3072, false).0[0].is_for_few_rows()
            && !plan_product(1, 768, 63, false).0[0].is_for_few_rows()
    );
    // A low-rank path: few columns, few terms, long sums of a small matrix.
    let (few_columns, _, part) = plan_product(2048, 16, 576, true);
    assert_eq!(few_columns[0], Config::Tile(Tile::NARROW, AccessPatterns::ALL[1]));
    assert_eq!(part, 144);
    let (few_terms, _, part) = plan_product(2048, 576, 16, true);
    assert_eq!(few_terms[0], Config::Outer(AccessPatterns::ALL[1]));
    assert_eq!((few_terms[1], part), (Config::Tile(Tile::LARGE, AccessPatterns::ALL[1]), 16));
    assert_eq!(plan_product(16, 576, 2048, false).2, 256);
    // Whole layers are not split, and all suitable tiles are candidates.
    let (layer, with_subgroups, part) = plan_product(2048, 1536, 576, true);
    assert_eq!((layer[0], part), (Config::Tile(Tile::LARGE, AccessPatterns::ALL[1]), 576));
    assert_eq!(layer.len(), Tile::ALL.len() - 2);
    assert_eq!(layer, with_subgroups);
    assert!(!layer.iter().any(|config| config.is_for_few_rows()));
}

#[test]
fn a_batch_that_shares_b_collapses_to_one_matrix() {
    let (a, b, c) =
        (make_value(DType::F32, 0, 60), make_value(DType::F32, 0, 20), make_value(DType::F32, 0, 72));
    let g = Gemm::new(3, 4, 5).batch(4);
    let choose = |a_batch: usize, b_batch: usize, c_batch: usize| {
        let (left, right) =
            (Matrix::new(&a, 5).with_batch_stride(a_batch), Matrix::new(&b, 4).with_batch_stride(b_batch));
        let (g, left, c) = collapse_batch(g, left, &right, Matrix::new(&c, 4).with_batch_stride(c_batch));
        (g.batch, g.m, left.batch, c.batch)
    };
    assert_eq!(choose(15, 0, 12), (1, 12, 0, 0));
    assert_eq!(choose(15, 20, 12), (4, 3, 15, 12));
    assert_eq!(choose(16, 0, 12), (4, 3, 16, 12));
    assert_eq!(choose(15, 0, 18), (4, 3, 15, 18));
}
