//! Writes every variant of every kernel for other compilers and for readers:
//!
//!   forms write FOLDER    a module of each variant: WGSL and SPIR-V, with the feature `translations` also MSL and
//!                         HLSL, and `forms.json`, which describes the files
//!   forms table           docs/kernels.md, on standard output

mod loops;
mod module;
mod registers;
mod spirv;
mod table;
mod write;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", folder] => write::write(folder.as_ref()),
        ["table"] => table::generate_table().map(|text| print!("{text}")),
        _ => Err("usage: forms write FOLDER, or forms table".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("forms: {message}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests;
