//! docs/kernels.md: the operations in the inner loops of products, attention and norms, counted from their SPIR-V.

use std::collections::BTreeSet;
use std::fmt::Write;

use lowrank_engine::kernel::{Kernel, Variant};
use lowrank_engine::kernels::{attention, gemm, norm};

use super::loops::{Counts, Loop, loops};
use super::module;
use super::registers::registers;
use super::spirv::Module;

const HEAD: &str = "# The inner loops of the kernels

Written by `npm run kernels` from the SPIR-V that the engine's shaders are compiled to, before a driver sees it. Of each
form of a product, of attention and of a norm the table shows the inner loop: of the loops that hold no other, the one
with most multiply-adds, or else with most arithmetic of floats. An iteration of one invocation is counted with all that
it calls, each side of a branch as if it were taken.

- Parameters: the four that are compiled into a form, which are the kernel's own (`0/1` is either); then the storage of
  bindings that are not f32 alone, or i32. Forms that count alike are one line; Forms says how many.
- Threads: invocations of a workgroup. Shared: bytes of workgroup memory.
- fma: multiply-adds of a number each (a `vec4` has four). Float: other arithmetic of floats. Integer: arithmetic of whole numbers,
  and the number of divisions among it.
- Shared loads and loads: from workgroup memory and from storage buffers, by the numbers that one of them loads, as in
  `2 × vec4`. fma a load: by the loads of both kinds.
- Registers: an estimate of 32-bit registers. All variables that the loop touches, and the most values that are live at
  one place of its text. A driver's compiler arrives at another figure.
- FLOPs a byte: arithmetic by bytes asked of storage buffers, in an iteration of the outermost loop that holds the inner
  one; `–` where a loop within runs a number of times that is no constant.
";

pub fn text() -> Result<String, String> {
    let mut out = String::from(HEAD);
    for (title, kernels) in
        [("Products", gemm::KERNELS), ("Attention", attention::KERNELS), ("Norms", norm::KERNELS)]
    {
        write!(out, "\n## {title}\n\n{}", family(kernels)?).unwrap();
    }
    Ok(out)
}

const COLUMNS: [&str; 13] = [
    "Kernel",
    "Parameters",
    "Forms",
    "Threads",
    "Shared",
    "fma",
    "Float",
    "Integer",
    "Shared loads",
    "Loads",
    "fma a load",
    "Registers",
    "FLOPs a byte",
];

fn family(kernels: &[&Kernel]) -> Result<String, String> {
    let mut out = format!("| {} |\n|{}\n", COLUMNS.join(" | "), " --- |".repeat(COLUMNS.len()));
    for kernel in kernels {
        // Variants with equal counts, in the order of the list.
        let mut lines: Vec<(String, Vec<Variant>)> = Vec::new();
        for variant in (kernel.variants)() {
            let counted = line(kernel, &variant).map_err(|e| format!("{} {variant:?}: {e}", kernel.name))?;
            match lines.iter_mut().find(|(line, _)| *line == counted) {
                Some((_, forms)) => forms.push(variant),
                None => lines.push((counted, vec![variant])),
            }
        }
        for (line, forms) in lines {
            writeln!(out, "| {} | {} | {} | {line} |", kernel.name, told(kernel, &forms), forms.len())
                .unwrap();
        }
    }
    Ok(out)
}

/// Returns the parameters of a line's variants, and the dtypes of bindings that differ from f32 and i32.
fn told(kernel: &Kernel, forms: &[Variant]) -> String {
    let params: BTreeSet<Vec<u32>> = forms.iter().map(|f| f.params.to_vec()).collect();
    let each: Vec<BTreeSet<u32>> = (0..4).map(|i| params.iter().map(|p| p[i]).collect()).collect();
    let is_product = each.iter().map(BTreeSet::len).product::<usize>() == params.len();
    let of = |set: &BTreeSet<u32>| set.iter().map(u32::to_string).collect::<Vec<_>>().join("/");
    let params = match is_product {
        true => each.iter().map(of).collect::<Vec<_>>().join(" "),
        false => params
            .iter()
            .map(|p| p.iter().map(u32::to_string).collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
            .join(", "),
    };
    let storage = kernel.bindings.iter().enumerate().filter_map(|(i, (name, _))| {
        let mut types: Vec<&str> = forms.iter().map(|f| f.dtypes[i].as_str()).collect();
        types.sort();
        types.dedup();
        (types != ["f32"] && types != ["i32"]).then(|| format!("; {name} {}", types.join("/")))
    });
    params + &storage.collect::<String>()
}

fn line(kernel: &Kernel, variant: &Variant) -> Result<String, String> {
    let checked = module::checked(&module::wgsl(kernel, variant))?;
    let spirv = Module::parse(&checked.spirv()?);
    let loops = loops(&spirv);
    let (threads, shared) = (variant.threads, checked.workgroup_bytes());
    let Some((outer, inner)) = inner(&loops) else {
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
        widths(counts.shared_loads),
        widths(counts.loads),
        ratio(counts.fma, loads),
        registers(&spirv, inner).to_string(),
        intensity(outer),
    ];
    Ok(cells.join(" | "))
}

/// Returns the innermost loop with the most multiply-adds, or else the most floating-point arithmetic, and the
/// outermost loop around it.
fn inner(loops: &[Loop]) -> Option<(&Loop, &Loop)> {
    let key = |l: &Loop| (l.counts.fma, l.counts.flops(), l.counts.bytes());
    let all = loops.iter().flat_map(|outer| outer.innermost().into_iter().map(move |inner| (outer, inner)));
    // On ties the first.
    all.reduce(|best, other| if key(other.1) > key(best.1) { other } else { best })
}

/// Returns the FLOPs per byte of an iteration of the loop including inner loops.
fn intensity(outer: &Loop) -> String {
    let told = |counts: Counts| ratio(counts.flops(), counts.bytes());
    outer.iteration().map_or("–".into(), told)
}

fn ratio(a: u32, b: u32) -> String {
    if b == 0 { "–".into() } else { format!("{:.2}", f64::from(a) / f64::from(b)) }
}

fn widths(loads: [u32; 4]) -> String {
    let names = ["", " × vec2", " × vec3", " × vec4"];
    let told: Vec<String> =
        loads.iter().zip(names).filter(|(n, _)| **n > 0).map(|(n, name)| format!("{n}{name}")).collect();
    if told.is_empty() { "–".into() } else { told.join(", ") }
}
