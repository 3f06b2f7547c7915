//! Staging of a factor with two strides in shared memory.
//!
//! The binding's loader (`load_<name>`, and `load_vec4_<name>` for four elements) converts stored elements to f32;
//! block types are another loader, and change nothing here. Lines past the end read the last line, and their results
//! are not stored; terms past the end are 0.

use super::emit::{COMPONENTS, emit_each};
use super::tile::{Block, StagingCode};

/// The access pattern to a factor in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Read {
    /// Single elements, with any strides.
    Elements,
    /// Vectors of four terms of a line; terms are contiguous.
    Terms,
    /// Vectors of four lines of a term; lines are contiguous.
    Lines,
}

/// A factor in memory, in WGSL: the start of its matrix, the block's first line and the end of the lines, and the
/// strides from line to line and from term to term.
pub struct Factor<'a> {
    /// The binding.
    pub name: &'a str,
    pub base: &'a str,
    pub line: &'a str,
    pub lines: &'a str,
    pub line_step: &'a str,
    pub term_step: &'a str,
    /// For a block in f16: the binding of the lines' scales, and the start of this matrix's scales.
    pub scales: Option<(&'a str, &'a str)>,
}

impl Factor<'_> {
    /// WGSL that stages the factor's blocks.
    pub fn emit_fill(&self, block: Block, read: Read) -> StagingCode {
        let count = if read == Read::Lines { block.vectors() * block.depth } else { block.patches() };
        let code = StagingCode { prologue: String::new(), body: String::new() };
        (0..count.div_ceil(block.threads)).fold(code, |mut code, i| {
            let one = StagedPiece { factor: self, block, name: format!("{}{i}", block.name) };
            let own = match block.from {
                _ if read == Read::Lines => "lane".to_string(),
                0 => "lane".to_string(),
                from => format!("(lane - {from}u)"),
            };
            let StagingCode { prologue, body } = match read {
                Read::Elements => one.stage_elements(),
                Read::Terms => one.stage_terms(),
                Read::Lines => one.stage_lines(),
            };
            code.prologue += &format!("    let {}_e = {own} + {}u;\n{prologue}", one.name, i * block.threads);
            // Excess invocations; for the lowest, the index has wrapped.
            code.body += &match count % block.threads {
                0 => format!("      {{\n{body}      }}\n"),
                _ => format!("      if {}_e < {count}u {{\n{body}      }}\n", one.name),
            };
            code
        })
    }
}

/// One of an invocation's patches or vectors.
struct StagedPiece<'a> {
    factor: &'a Factor<'a>,
    block: Block,
    /// The prefix of its variables.
    name: String,
}

impl StagedPiece<'_> {
    /// The lines and terms of a patch of four by four. Two invocations read adjacent terms, so that concurrent stores
    /// are to different banks.
    fn emit_patch(&self) -> String {
        let (n, vectors) = (&self.name, self.block.vectors());
        format!(
            "    let {n}_i = ({n}_e >> 1u) % {vectors}u;
    let {n}_t = (({n}_e & 1u) + {n}_e / {}u * 2u) * 4u;
    let {n}_to = {n}_t * {}u + {n}_i;
",
            vectors * 2,
            self.block.stride(),
        )
    }

    /// The start of line `s` of the patch, in elements.
    fn emit_start(&self, s: u32) -> String {
        let Factor { base, line, lines, line_step, .. } = self.factor;
        format!("{base} + min({line} + {}_i * 4u + {s}u, {lines} - 1u) * {line_step}", self.name)
    }

    /// The scales of its four lines; lines past the end have the last line's.
    fn emit_scales(&self) -> String {
        let (n, Factor { line, lines, .. }) = (&self.name, self.factor);
        let Some((name, base)) = self.factor.scales else { return String::new() };
        let emit_scale =
            |s: u32| format!("load_{name}({base} + min({line} + {n}_i * 4u + {s}u, {lines} - 1u))");
        let all: Vec<_> = (0..4).map(emit_scale).collect();
        format!("    let {n}_scale = vec4<f32>({});\n", all.join(", "))
    }

    /// The staged value of a vector of four lines.
    fn emit_staged(&self, vector: String) -> String {
        match self.factor.scales {
            Some(_) => format!("rounded({vector} * {}_scale)", self.name),
            None => vector,
        }
    }

    fn stage_terms(&self) -> StagingCode {
        let (n, name, Block { depth, .. }) = (&self.name, self.factor.name, self.block);
        let prologue = self.emit_patch()
            + &self.emit_scales()
            + &emit_each(4, |s| format!("    var {n}_a{s} = ({} + {n}_t) / 4u;\n", self.emit_start(s)));
        let loads = emit_each(4, |s| format!("          v{s} = load_vec4_{name}({n}_a{s});\n"));
        let body = emit_each(4, |s| format!("        var v{s} = vec4<f32>();\n"))
            + &format!("        if k + {n}_t < terms {{\n{loads}        }}\n")
            + &emit_each(4, |t| {
                let part = COMPONENTS[t as usize];
                self.emit_store(t, &format!("v0.{part}, v1.{part}, v2.{part}, v3.{part}"))
            })
            + &emit_each(4, |s| format!("        {n}_a{s} += {}u;\n", depth / 4));
        StagingCode { prologue, body }
    }

    fn stage_elements(&self) -> StagingCode {
        let (n, Factor { name, term_step, .. }) = (&self.name, self.factor);
        let prologue = self.emit_patch()
            + &self.emit_scales()
            + &emit_each(4, |s| format!("    let {n}_a{s} = {};\n", self.emit_start(s)))
            + &format!("    var {n}_at = {n}_t * {term_step};\n");
        let body = emit_each(4, |t| {
            let loads: Vec<_> = (0..4).map(|s| format!("load_{name}({n}_a{s} + at)")).collect();
            format!(
                "        {{
          var v = vec4<f32>();
          let at = {n}_at + {t}u * {term_step};
          if k + {n}_t + {t}u < terms {{ v = vec4<f32>({}); }}
  {}        }}
",
                loads.join(", "),
                self.emit_store(t, "v")
            )
        }) + &format!("        {n}_at += {}u * {term_step};\n", self.block.depth);
        StagingCode { prologue, body }
    }

    fn stage_lines(&self) -> StagingCode {
        let (n, Block { depth, name: shared, .. }) = (&self.name, self.block);
        let Factor { name, base, line, lines, term_step, .. } = self.factor;
        let (vectors, stride) = (self.block.vectors(), self.block.stride());
        StagingCode {
            prologue: format!(
                "    let {n}_i = {n}_e % {vectors}u;
    let {n}_t = {n}_e / {vectors}u;
    var {n}_at = ({base} + min({line} + {n}_i * 4u, {lines} - 4u) + {n}_t * {term_step}) / 4u;
    let {n}_step = {term_step} / 4u * {depth}u;
{}",
                self.emit_scales()
            ),
            body: format!(
                "        var v = vec4<f32>();
        if k + {n}_t < terms {{ v = load_vec4_{name}({n}_at); }}
        {shared}[{n}_t * {stride}u + {n}_i] = {};
        {n}_at += {n}_step;
",
                self.emit_staged("v".into())
            ),
        }
    }

    /// Stores the patch's vector of term `t`.
    fn emit_store(&self, t: u32, vector: &str) -> String {
        let (n, block) = (&self.name, self.block);
        let staged = self.emit_staged(format!("vec4<f32>({vector})"));
        format!("        {}[{n}_to + {}u] = {staged};\n", block.name, t * block.stride())
    }
}
