//! The shader compiler of DX12: DXC where one works, else FXC, which Windows has.
//!
//! wgpu takes one compiler for all DX12 adapters of an instance, and fails late where that does not work: without the
//! file no DX12 adapter is listed, and with an unsigned compiler each pipeline fails. So each candidate compiles a
//! small shader first, before an instance or a device exists.

#[cfg(windows)]
mod dxc;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

/// The variable that names a DXC, as an absolute path.
pub const VARIABLE: &str = "LOWRANK_DXC";

/// A file that may be a DXC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where the path comes from, for warnings: `LOWRANK_DXC`, `the package webgpu`.
    pub source: String,
    pub path: PathBuf,
}

/// A compiler of DX12's shaders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    Dxc { path: PathBuf, version: String },
    Fxc,
}

impl Compiler {
    /// `DXC 1.8 (C:\…\dxcompiler.dll)` or `FXC`.
    pub fn describe(&self) -> String {
        match self {
            Compiler::Dxc { path, version } => format!("DXC {version} ({})", path.display()),
            Compiler::Fxc => "FXC".into(),
        }
    }
}

/// The compiler to use, and a warning for each candidate before it that does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub compiler: Compiler,
    pub warnings: Vec<String>,
}

/// How to get a DXC that works, for warnings and errors.
pub const REMEDY: &str = "set LOWRANK_DXC to the absolute path of a dxcompiler.dll of version 1.8.2502 or later, or \
                          install the package webgpu, which contains one: npm install webgpu";

/// Chooses the first candidate that `probe` accepts (it gives the version), else FXC. Candidates are tried in order;
/// the paths of `LOWRANK_DXC` are tried first.
pub fn choose(
    variable: Option<PathBuf>,
    others: &[Candidate],
    probe: impl Fn(&Path) -> Result<String, String>,
) -> Choice {
    let mut warnings = Vec::new();
    let named = variable.into_iter().map(|path| Candidate { source: VARIABLE.into(), path });
    let candidates: Vec<Candidate> = named.chain(others.iter().cloned()).collect();
    for (i, Candidate { source, path }) in candidates.iter().enumerate() {
        let checked = match path.is_absolute() {
            // The system would search for a relative path in folders that anyone may write to.
            false => Err("is not an absolute path".into()),
            true => probe(path),
        };
        match checked {
            Ok(version) => {
                return Choice { compiler: Compiler::Dxc { path: path.clone(), version }, warnings };
            }
            Err(reason) => {
                let next = match candidates.get(i + 1) {
                    Some(next) => format!("trying that of {}", next.source),
                    None => format!("shaders are compiled by FXC, which is slower; {REMEDY}"),
                };
                warnings.push(format!(
                    "the DX12 shader compiler of {source}, {}, {reason}; {next}",
                    path.display()
                ));
            }
        }
    }
    Choice { compiler: Compiler::Fxc, warnings }
}

/// Files besides `LOWRANK_DXC`'s, set by `look_in`.
static OTHERS: Mutex<Vec<Candidate>> = Mutex::new(Vec::new());

/// Sets the files that are tried after `LOWRANK_DXC`'s, in order. They are read when GPUs are first looked for; files
/// that do not exist are left out.
pub fn look_in(candidates: Vec<Candidate>) {
    let there = candidates.into_iter().filter(|c| c.path.is_file()).collect();
    *OTHERS.lock().unwrap_or_else(|e| e.into_inner()) = there;
}

/// The choice of this process, made once.
pub fn chosen() -> &'static Choice {
    static CHOICE: OnceLock<Choice> = OnceLock::new();
    CHOICE.get_or_init(|| {
        let variable = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let others = OTHERS.lock().unwrap_or_else(|e| e.into_inner()).clone();
        choose(variable, &others, probe)
    })
}

/// Warnings that `take_warnings` has yet to give.
static WARNINGS: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// Has the choice's warnings told, once in a process: DX12 drives a GPU here, or the user named a compiler.
pub fn warn() {
    WARNINGS.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert_with(|| chosen().warnings.clone());
}

/// Takes the warnings that were not taken yet.
pub fn take_warnings() -> Vec<String> {
    let mut warnings = WARNINGS.lock().unwrap_or_else(|e| e.into_inner());
    warnings.as_mut().map(std::mem::take).unwrap_or_default()
}

#[cfg(windows)]
use dxc::probe;

#[cfg(not(windows))]
fn probe(_: &Path) -> Result<String, String> {
    Err("is of no use on this system".into())
}
