//! The shader compiler of DX12: DXC if one works, otherwise FXC, which is part of Windows.
//!
//! wgpu uses one compiler for all DX12 adapters of an instance and reports a broken one late: without the file no DX12
//! adapter is listed, and with an unsigned compiler each pipeline fails. So each candidate first compiles a small
//! shader, before an instance or a device exists.

#[cfg(windows)]
mod dxc;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

/// The environment variable with the absolute path of a DXC.
pub const VARIABLE: &str = "LOWRANK_DXC";

/// A candidate for DXC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The source of the path, for warnings: `LOWRANK_DXC`, `the package webgpu`.
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

/// The chosen compiler, and a warning for each earlier candidate that does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub compiler: Compiler,
    pub warnings: Vec<String>,
}

/// How to get a working DXC, for warnings and errors.
pub const REMEDY: &str = "set LOWRANK_DXC to the absolute path of a dxcompiler.dll of version 1.8.2502 or later, or \
                          install the package webgpu, which contains one: npm install webgpu";

/// Chooses the first candidate that `probe` accepts (it returns the version), else FXC. Candidates are tried in the
/// given order, after the path in `LOWRANK_DXC`.
pub fn choose(
    variable: Option<PathBuf>,
    others: &[Candidate],
    probe: impl Fn(&Path) -> Result<String, String>,
) -> Choice {
    let mut warnings = Vec::new();
    let first = variable.into_iter().map(|path| Candidate { source: VARIABLE.into(), path });
    let candidates: Vec<Candidate> = first.chain(others.iter().cloned()).collect();
    for (i, Candidate { source, path }) in candidates.iter().enumerate() {
        let checked = match path.is_absolute() {
            // The system would search for a relative path in folders that any user can write to.
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

/// Candidates in addition to `LOWRANK_DXC`, set by `set_candidates`.
static CANDIDATES: Mutex<Vec<Candidate>> = Mutex::new(Vec::new());

/// Sets the files that are tried after the one in `LOWRANK_DXC`, in the given order. They are read when GPUs are first
/// detected; files that do not exist are ignored.
pub fn set_candidates(candidates: Vec<Candidate>) {
    let existing = candidates.into_iter().filter(|c| c.path.is_file()).collect();
    *CANDIDATES.lock().unwrap_or_else(|e| e.into_inner()) = existing;
}

/// The choice of this process, made at the first call.
pub fn get_choice() -> &'static Choice {
    static CHOICE: OnceLock<Choice> = OnceLock::new();
    CHOICE.get_or_init(|| {
        let variable = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let others = CANDIDATES.lock().unwrap_or_else(|e| e.into_inner()).clone();
        choose(variable, &others, probe)
    })
}

/// Warnings that `take_warnings` has not returned yet.
static WARNINGS: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// Makes the choice's warnings available, once in a process: a GPU uses DX12, or the user named a compiler.
pub fn publish_warnings() {
    WARNINGS.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert_with(|| get_choice().warnings.clone());
}

/// Returns the warnings that have not been taken yet.
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
