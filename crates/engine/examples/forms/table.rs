//! docs/kernels.md: the operations in the inner loops of products, attention and norms, counted from their SPIR-V.

use std::collections::BTreeSet;
use std::fmt::Write;

use lowrank_engine::kernel::{Kernel, Params, Variant};
use lowrank_engine::kernels::{attention, gemm, norm};

use super::loops::{Counts, Loop, find_loops};
use super::module;
use super::registers::count_registers;
use super::spirv::Module;

const HEAD: &str = "# The inner loops of the kernels

Written by `npm run kernels` from the SPIR-V of the engine's shaders, before a driver compiles it. For each variant of a
product, of attention and of a norm, the table shows the inner loop: of the innermost loops the one with the most
multiply-adds, or else with the most floating-point arithmetic. An iteration of one invocation is counted with the
functions that it calls, and with both sides of each branch.

- Variant: its properties. A tile has M×N elements of C per workgroup and K terms per stage (`tile 64×64×16`); an
  invocation computes `4×4 each`. Dot products and columns have a number of rows. Vector loads read four elements.
  `a / b` stands for variants with either property. Then the storage of bindings with other types than f32 and i32.
- Variants: the number of variants in the line, which have equal counts.
- Threads: invocations per workgroup. Shared: bytes of workgroup memory.
- fma: scalar multiply-adds (a `vec4` has four). Float: other floating-point arithmetic. Integer: integer arithmetic,
  and the number of divisions in it.
- Shared loads and loads: from workgroup memory and from storage buffers, by the width of a load, as in `2 × vec4`.
  fma/load: per load of either kind.
- Registers: an estimate of 32-bit registers: the variables that the loop uses, and the most values that are live at
  one point. A driver's compiler arrives at another figure.
- FLOPs/byte: arithmetic per byte loaded from storage buffers, in an iteration of the outermost loop around the inner
  one; `–` where the number of iterations of an inner loop is not constant.
";

type Describe = fn(&Kernel, Params) -> Vec<String>;

pub fn generate_table() -> Result<String, String> {
    let mut out = String::from(HEAD);
    let families: [(&str, &[&Kernel], Describe); 3] = [
        ("Products", gemm::KERNELS, gemm::describe),
        ("Attention", attention::KERNELS, attention::describe),
        ("Norms", norm::KERNELS, norm::describe),
    ];
    for (title, kernels, describe) in families {
        write!(out, "\n## {title}\n\n{}", format_family(kernels, describe)?).unwrap();
    }
    Ok(out)
}

const COLUMNS: [&str; 13] = [
    "Kernel",
    "Variant",
    "Variants",
    "Threads",
    "Shared",
    "fma",
    "Float",
    "Integer",
    "Shared loads",
    "Loads",
    "fma/load",
    "Registers",
    "FLOPs/byte",
];

fn format_family(kernels: &[&Kernel], describe: Describe) -> Result<String, String> {
    let mut out = format!("| {} |\n|{}\n", COLUMNS.join(" | "), " --- |".repeat(COLUMNS.len()));
    for kernel in kernels {
        // Variants with equal counts, in the order of the list.
        let mut lines: Vec<(String, Vec<Variant>)> = Vec::new();
        for variant in (kernel.variants)() {
            let counted =
                format_line(kernel, &variant).map_err(|e| format!("{} {variant:?}: {e}", kernel.name))?;
            match lines.iter_mut().find(|(line, _)| *line == counted) {
                Some((_, forms)) => forms.push(variant),
                None => lines.push((counted, vec![variant])),
            }
        }
        for (line, forms) in lines {
            let words = describe_all(kernel, &forms, describe);
            writeln!(out, "| {} | {words} | {} | {line} |", kernel.name, forms.len()).unwrap();
        }
    }
    Ok(out)
}

/// Describes the variants of a line, and the dtypes of bindings that differ from f32 and i32.
fn describe_all(kernel: &Kernel, forms: &[Variant], describe: Describe) -> String {
    let mut words: Vec<Vec<String>> = Vec::new();
    for form in forms {
        let one = describe(kernel, form.params);
        if !words.contains(&one) {
            words.push(one);
        }
    }
    let mut parts = list_alternatives(&words);
    for (i, (name, _)) in kernel.bindings.iter().enumerate() {
        let types: BTreeSet<&str> = forms.iter().map(|f| f.dtypes[i].as_str()).collect();
        if !types.iter().all(|t| ["f32", "i32"].contains(t)) {
            parts.push(format!("{name} {}", types.into_iter().collect::<Vec<_>>().join("/")));
        }
    }
    if parts.is_empty() { "–".into() } else { parts.join(", ") }
}

/// Returns each property with its alternatives, if all combinations of these occur; otherwise every description.
fn list_alternatives(words: &[Vec<String>]) -> Vec<String> {
    let length = words[0].len();
    let mut properties: Vec<Vec<&str>> = vec![Vec::new(); length];
    for (property, word) in words.iter().flat_map(|one| one.iter().enumerate()) {
        if property < length && !properties[property].contains(&&word[..]) {
            properties[property].push(word);
        }
    }
    let combinations: usize = properties.iter().map(Vec::len).product();
    if combinations == words.len() && words.iter().all(|one| one.len() == length) {
        return properties.iter().map(|p| p.join(" / ")).collect();
    }
    vec![words.iter().map(|one| one.join(", ")).collect::<Vec<_>>().join("; ")]
}

fn format_line(kernel: &Kernel, variant: &Variant) -> Result<String, String> {
    let checked = module::validate(&module::generate_wgsl(kernel, variant))?;
    let spirv = Module::parse(&checked.to_spirv()?);
    let loops = find_loops(&spirv);
    let (threads, shared) = (variant.threads, checked.workgroup_bytes());
    let Some((outer, inner)) = find_inner_loop(&loops) else {
        return Ok(format!("{threads} | {shared} | – | – | – | – | – | – | – | –"));
    };
    let counts = inner.counts;
    let loads: u32 = counts.shared_loads.iter().chain(&counts.loads).sum();
    let integer = match counts.divisions {
        0 => counts.integer.to_string(),
        n => format!("{}, {n} divisions", counts.integer + n),
    };
    let cells = [
        threads.to_string(),
        shared.to_string(),
        counts.fma.to_string(),
        counts.float.to_string(),
        integer,
        format_widths(counts.shared_loads),
        format_widths(counts.loads),
        format_ratio(counts.fma, loads),
        count_registers(&spirv, inner).to_string(),
        format_intensity(outer),
    ];
    Ok(cells.join(" | "))
}

/// Returns the innermost loop with the most multiply-adds, or else the most floating-point arithmetic, and the
/// outermost loop around it.
fn find_inner_loop(loops: &[Loop]) -> Option<(&Loop, &Loop)> {
    let key = |l: &Loop| (l.counts.fma, l.counts.flops(), l.counts.bytes());
    let all =
        loops.iter().flat_map(|outer| outer.find_innermost().into_iter().map(move |inner| (outer, inner)));
    // On ties the first.
    all.reduce(|best, other| if key(other.1) > key(best.1) { other } else { best })
}

/// Returns the FLOPs per byte of an iteration of the loop including inner loops.
fn format_intensity(outer: &Loop) -> String {
    let format = |counts: Counts| format_ratio(counts.flops(), counts.bytes());
    outer.count_iteration().map_or("–".into(), format)
}

fn format_ratio(a: u32, b: u32) -> String {
    if b == 0 { "–".into() } else { format!("{:.2}", f64::from(a) / f64::from(b)) }
}

fn format_widths(loads: [u32; 4]) -> String {
    let names = ["", " × vec2", " × vec3", " × vec4"];
    let parts: Vec<String> =
        loads.iter().zip(names).filter(|(n, _)| **n > 0).map(|(n, name)| format!("{n}{name}")).collect();
    if parts.is_empty() { "–".into() } else { parts.join(", ") }
}
