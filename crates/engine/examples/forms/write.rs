//! All forms into a folder.

use std::fs;
use std::path::Path;

use lowrank_engine::{kernels, optim};
use serde_json::json;

use super::module;

pub fn write(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let put = |name: &str, content: &[u8]| {
        fs::write(folder.join(name), content).map_err(|e| format!("{}: {e}", folder.join(name).display()))
    };
    let mut listed = Vec::new();
    let mut wrong = Vec::new();
    for kernel in kernels::all().into_iter().chain(optim::kernels()) {
        for variant in (kernel.variants)() {
            let file = format!("{:04}-{}", listed.len(), kernel.name.replace(' ', "_"));
            let text = module::wgsl(kernel, &variant);
            put(&format!("{file}.wgsl"), text.as_bytes())?;
            let made = module::checked(&text).and_then(|checked| {
                let spirv = ("spv", words(&checked.spirv()?));
                Ok([vec![spirv], translations(&checked)?].concat())
            });
            match made {
                Ok(made) => {
                    for (extension, content) in made {
                        put(&format!("{file}.{extension}"), &content)?;
                    }
                }
                Err(message) => wrong.push(format!("{file} {variant:?}: {message}")),
            }
            let dtypes: Vec<String> = variant.dtypes.iter().map(|d| d.to_string()).collect();
            listed.push(json!({
                "file": file,
                "kernel": kernel.name,
                "params": variant.params,
                "dtypes": dtypes,
                "threads": variant.threads,
            }));
        }
    }
    put("forms.json", serde_json::Value::from(listed).to_string().as_bytes())?;
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// The same in the languages of Metal and DX12.
#[cfg(feature = "translations")]
fn translations(checked: &module::Checked) -> Result<Vec<(&'static str, Vec<u8>)>, String> {
    Ok(vec![("metal", checked.msl()?.into_bytes()), ("hlsl", checked.hlsl()?.into_bytes())])
}

#[cfg(not(feature = "translations"))]
fn translations(_: &module::Checked) -> Result<Vec<(&'static str, Vec<u8>)>, String> {
    Ok(Vec::new())
}

fn words(spirv: &[u32]) -> Vec<u8> {
    spirv.iter().flat_map(|word| word.to_le_bytes()).collect()
}
