use super::loops::{Counts, Loop, find_loops};
use super::registers::count_registers;
use super::spirv::Module;
use super::{module, table};

fn parse(body: &str) -> Module {
    let text = format!(
        "@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
var<workgroup> shared_x: array<f32, 256>;
var<workgroup> shared_v: array<vec4<f32>, 64>;
{body}"
    );
    Module::parse(&module::validate(&text).and_then(|c| c.to_spirv()).unwrap_or_else(|e| panic!("{e}")))
}

fn parse_loops(body: &str) -> Vec<Loop> {
    find_loops(&parse(body))
}

const TILES: &str = "
fn part(k: u32) -> vec4<f32> { return shared_v[k]; }
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
  var sums: array<vec4<f32>, 2>;
  for (var step = 0u; step < arrayLength(&x) / 16u; step++) {
    shared_x[lane] = x[step * 64u + lane];
    shared_v[lane] = v[step * 64u + lane];
    workgroupBarrier();
    for (var k = 0u; k < 16u; k++) {
      let b = part(k);
      sums[0] = fma(vec4<f32>(shared_x[k]), b, sums[0]);
      sums[1] = fma(vec4<f32>(shared_x[k + 16u]), b, sums[1]);
    }
    workgroupBarrier();
  }
  y[lane] = sums[0] + sums[1];
}";

#[test]
fn the_counts_of_a_tile_include_called_functions() {
    let module = parse(TILES);
    let outer = find_loops(&module);
    let [outer] = &outer[..] else { panic!("{outer:?}") };
    let [inner] = &outer.inner[..] else { panic!("{outer:?}") };
    // Two sums of vec4; k, and k + 16.
    let expected = Counts { fma: 8, integer: 2, shared_loads: [2, 0, 0, 1], ..Counts::default() };
    assert_eq!(inner.counts, expected);
    assert_eq!(inner.trips, Some(16));
    assert_eq!((outer.counts.loads, outer.counts.divisions), ([1, 0, 0, 1], 1));
    let iteration = outer.count_iteration().unwrap();
    assert_eq!((iteration.flops(), iteration.bytes()), (2 * 8 * 16, 20));
    // The sums and k are variables of 9 numbers; a part, a splat and a sum are 12 live numbers.
    let registers = count_registers(&module, inner);
    assert!((9 + 12..=9 + 20).contains(&registers), "{registers}");
}

#[test]
fn constant_trip_counts_are_found() {
    let trips = |head: &str| {
        let text = format!(
            "@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {{
  var sum = 0.0;
  for ({head}) {{ sum += x[i]; }}
  y[lane] = vec4<f32>(sum);
}}"
        );
        parse_loops(&text)[0].trips
    };
    assert_eq!(trips("var i = 0u; i < 10u; i++"), Some(10));
    assert_eq!(trips("var i = 3u; i < 10u; i += 2u"), Some(4));
    assert_eq!(trips("var i = lane; i < 256u; i += 64u"), Some(4));
    assert_eq!(trips("var i = 0u; i < lane; i++"), None);
    assert_eq!(trips("var i = 0u; i < 10u; i += lane"), None);
}

#[test]
fn sequential_and_nested_loops_are_distinguished() {
    let found = parse_loops(
        "
fn called() -> f32 {
  var sum = 0.0;
  for (var i = 0u; i < 4u; i++) { sum += x[i] * 2.0; }
  return sum;
}
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  if lane > 3u { for (var i = 0u; i < 4u; i++) { sum += x[i]; if sum > 1e9 { break; } } }
  for (var i = 0u; i < lane; i++) { sum += called(); }
  y[lane] = vec4<f32>(sum);
}",
    );
    assert_eq!(found.len(), 2);
    assert!(found[0].inner.is_empty());
    assert_eq!(found[1].inner.len(), 1);
    assert_eq!(found[1].inner[0].counts.float, 2);
    assert_eq!(found[1].count_iteration().map(|c| (c.flops(), c.bytes())), Some((9, 16)));
}

#[test]
fn the_documented_table_equals_the_generated_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/kernels.md");
    let written = std::fs::read_to_string(path).unwrap_or_default();
    let generated = table::generate_table().unwrap_or_else(|e| panic!("{e}"));
    let differs = || written.lines().zip(generated.lines()).position(|(a, b)| a != b).unwrap_or(0) + 1;
    assert!(written == generated, "docs/kernels.md differs from line {}; run npm run kernels", differs());
}
