//! WGSL that reads elements of a binding in blocks, four contiguous elements at a time, with the bits of `quant`.
//!
//! A binding is an array of words with the blocks in file layout, at any even byte (nf4 at any byte). Nothing is
//! repacked when a weight is uploaded; the scales, and the words around the codes, come from a cache. Products of a
//! scale and a code are exact in f32, so that fusing them with a sum changes no bit.

use lowrank_cpu::quant::{BlockType, nf4};

/// `load_NAME(element)`, and `load_vec4_NAME(element / 4)`; `p.NAME_at` is in bytes.
pub fn emit_loaders(name: &str, kind: BlockType) -> String {
    let body = emit_body(kind).replace('@', name);
    let (elements, bytes) = (kind.elements(), kind.bytes());
    let place = match kind {
        BlockType::Nf4 => String::new(),
        _ => format!("  let at = p.{name}_at + e / {elements}u * {bytes}u;\n  let i = e % {elements}u;\n"),
    };
    READ.replace('@', name)
        + &emit_table(kind).replace('@', name)
        + &format!(
            "fn load_vec4_{name}(i4: u32) -> vec4<f32> {{
  let e = i4 * 4u;
{place}{body}}}
fn load_{name}(i: u32) -> f32 {{ let v = load_vec4_{name}(i >> 2u); return v[i & 3u]; }}
"
        )
}

/// Unaligned reads: a byte, a word (only its bytes inside the binding), an f16 at an even byte.
const READ: &str = "
fn byte_@(at: u32) -> u32 { return (@[at >> 2u] >> ((at & 3u) * 8u)) & 255u; }
fn word_@(at: u32) -> u32 {
  let shift = (at & 3u) * 8u;
  let low = @[at >> 2u] >> shift;
  if shift == 0u { return low; }
  return low | (@[(at >> 2u) + 1u] << (32u - shift));
}
fn half_@(at: u32) -> f32 { return unpack2x16float(@[at >> 2u] >> ((at & 2u) * 8u)).x; }
// The bytes of a word.
fn spread_@(word: u32, shift: u32) -> vec4<u32> { return vec4<u32>(word) >> (vec4<u32>(0u, 8u, 16u, 24u) + shift); }
";

/// The table of a type whose codes are indices into one.
fn emit_table(kind: BlockType) -> String {
    let values: Vec<String> = match kind {
        BlockType::Iq4Nl => lowrank_cpu::quant::IQ4_NL.iter().map(|v| format!("{v:?}")).collect(),
        BlockType::Nf4 => nf4::TABLE.iter().map(|v| format!("{v:?}")).collect(),
        _ => return String::new(),
    };
    let four = |i: usize| format!("vec4<f32>({})", values[4 * i..][..4].join(", "));
    format!(
        "fn entry_@(code: u32) -> f32 {{
  var four = {};
  if code >= 12u {{ four = {}; }} else if code >= 8u {{ four = {}; }} else if code >= 4u {{ four = {}; }}
  return four[code & 3u];
}}
fn entries_@(c: vec4<u32>) -> vec4<f32> {{
  return vec4<f32>(entry_@(c.x), entry_@(c.y), entry_@(c.z), entry_@(c.w));
}}
",
        four(0),
        four(3),
        four(2),
        four(1)
    )
}

/// Scale and minimum of a run of 32 of q4_k and q5_k.
const SIX_BITS: &str = "  let run = i / 32u;
  var s = byte_@(at + 4u + run) & 63u;
  var m = byte_@(at + 8u + run) & 63u;
  if run >= 4u {
    let low = byte_@(at + 8u + run);
    s = (low & 15u) | ((byte_@(at + run) >> 6u) << 4u);
    m = (low >> 4u) | ((byte_@(at + 4u + run) >> 6u) << 4u);
  }
  let scale = half_@(at) * f32(s);
  let minimum = half_@(at + 2u) * f32(m);
";

/// Unpacks four values, given the block's offset and the first element's index in it.
fn emit_body(kind: BlockType) -> String {
    let nibbles = |from: u32| {
        format!("  let c = spread_@(word_@(at + {from}u + i % 16u), i / 16u * 4u) & vec4<u32>(15u);\n")
    };
    let fifths = |from: u32| {
        format!(
            "  let fifth = (vec4<u32>(word_@(at + {from}u)) >> (vec4<u32>(0u, 1u, 2u, 3u) + i)) & vec4<u32>(1u);\n  \
             let q = vec4<f32>(c | (fifth << vec4<u32>(4u)));\n"
        )
    };
    let two_bits = |from: u32| {
        format!(
            "  let run = i / 16u;\n  \
             let c = spread_@(word_@(at + {from}u + run / 8u * 32u + run % 2u * 16u + i % 16u), run % 8u / 2u * 2u) \
             & vec4<u32>(3u);\n"
        )
    };
    match kind {
        BlockType::Q4_0 => nibbles(2) + "  return half_@(at) * (vec4<f32>(c) - 8.0);\n",
        BlockType::Q4_1 => nibbles(4) + "  return half_@(at) * vec4<f32>(c) + half_@(at + 2u);\n",
        BlockType::Q5_0 => nibbles(6) + &fifths(2) + "  return half_@(at) * (q - 16.0);\n",
        BlockType::Q5_1 => nibbles(8) + &fifths(4) + "  return half_@(at) * q + half_@(at + 2u);\n",
        BlockType::Q8_0 => "  let c = vec4<i32>(bitcast<i32>(word_@(at + 2u + i))) << vec4<u32>(24u, 16u, 8u, 0u);
  return vec4<f32>(c >> vec4<u32>(24u)) * half_@(at);
"
        .into(),
        BlockType::Q2K => {
            two_bits(16)
                + "  let s = byte_@(at + run);
  return half_@(at + 80u) * f32(s & 15u) * vec4<f32>(c) - half_@(at + 82u) * f32(s >> 4u);
"
        }
        BlockType::Q3K => {
            two_bits(32)
                + "  let low = (byte_@(at + 96u + run % 8u) >> (run / 8u * 4u)) & 15u;
  let high = (byte_@(at + 104u + run % 4u) >> (run / 4u * 2u)) & 3u;
  let scale = half_@(at + 108u) * f32(i32(low | (high << 4u)) - 32);
  let third = spread_@(word_@(at + run % 2u * 16u + i % 16u), run / 2u) & vec4<u32>(1u);
  return scale * (vec4<f32>(c | (third << vec4<u32>(2u))) - 4.0);
"
        }
        BlockType::Q4K => {
            SIX_BITS.to_string()
                + "  let c = spread_@(word_@(at + 16u + run / 2u * 32u + i % 32u), run % 2u * 4u) & vec4<u32>(15u);
  return scale * vec4<f32>(c) - minimum;
"
        }
        BlockType::Q5K => {
            SIX_BITS.to_string()
                + "  let c = spread_@(word_@(at + 48u + run / 2u * 32u + i % 32u), run % 2u * 4u) & vec4<u32>(15u);
  let fifth = spread_@(word_@(at + 16u + i % 32u), run) & vec4<u32>(1u);
  return scale * vec4<f32>(c | (fifth << vec4<u32>(4u))) - minimum;
"
        }
        BlockType::Q6K => "  let run = i / 16u;
  let within = run % 8u;
  let c = spread_@(word_@(at + 64u * (run / 8u) + within % 4u * 16u + i % 16u), within / 4u * 4u) & vec4<u32>(15u);
  let high = spread_@(word_@(at + 128u + 32u * (run / 8u) + within % 2u * 16u + i % 16u), within / 2u * 2u) \
                            & vec4<u32>(3u);
  let scale = half_@(at + 208u) * f32(bitcast<i32>(byte_@(at + 192u + run) << 24u) >> 24u);
  return scale * (vec4<f32>(c | (high << vec4<u32>(4u))) - 32.0);
"
        .into(),
        BlockType::Iq4Nl => nibbles(2) + "  return half_@(at) * entries_@(c);\n",
        BlockType::Nf4 => emit_nf4_body(),
    }
}

/// Unpacks four values of nf4, whose scales are stored before each group of blocks.
fn emit_nf4_body() -> String {
    format!(
        "  let block = e / {elements}u;
  let head = p.@_at + block / {group}u * {of_group}u;
  let at = head + {before}u + block % {group}u * {bytes}u;
  let code = byte_@(at);
  let exponent = (code >> 3u) & 15u;
  var magnitude = bitcast<f32>(((exponent + 120u) << 23u) | ((code & 7u) << 20u));
  if exponent == 0u {{ magnitude = f32(code & 7u) * 0.001953125; }}
  let scale = select(magnitude, -magnitude, code >= 128u) * bitcast<f32>(@[head >> 2u]) + bitcast<f32>(@[(head >> 2u) + 1u]);
  let i = e % {elements}u;
  let word = word_@(at + 1u + i / 32u * 16u + i % 16u);
  return scale * entries_@(spread_@(word, i % 32u / 16u * 4u) & vec4<u32>(15u));
",
        elements = nf4::ELEMENTS,
        group = nf4::GROUP,
        of_group = nf4::HEAD + nf4::GROUP * nf4::BYTES,
        before = nf4::HEAD,
        bytes = nf4::BYTES,
    )
}
