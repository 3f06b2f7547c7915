//! Writes all variants into a folder.

use std::fs;
use std::path::Path;

#[cfg(feature = "translations")]
use lowrank_engine::kernel::shader;
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
    for kernel in kernels::list_kernels().into_iter().chain(optim::list_kernels()) {
        for variant in (kernel.variants)() {
            let file = format!("{:04}-{}", listed.len(), kernel.name.replace(' ', "_"));
            let text = module::generate_wgsl(kernel, &variant);
            put(&format!("{file}.wgsl"), text.as_bytes())?;
            let made = module::validate(&text).and_then(|checked| {
                let spirv = ("spv", to_bytes(&checked.to_spirv()?));
                Ok([vec![spirv], translate(&text, &checked)?].concat())
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

/// The shader models for HLSL: FXC's, DXC's first, the first with f16, and a later one. A variant that a model
/// cannot express (f16 and subgroups before 6.x) has no file for it.
#[cfg(feature = "translations")]
const SHADER_MODELS: [(&str, naga::back::hlsl::ShaderModel); 4] = {
    use naga::back::hlsl::ShaderModel;
    [
        ("51.hlsl", ShaderModel::V5_1),
        ("60.hlsl", ShaderModel::V6_0),
        ("62.hlsl", ShaderModel::V6_2),
        ("66.hlsl", ShaderModel::V6_6),
    ]
};

/// The lowest shader model with the features that a variant uses.
#[cfg(feature = "translations")]
fn first_shader_model(text: &str) -> naga::back::hlsl::ShaderModel {
    use naga::back::hlsl::ShaderModel;
    match (text.starts_with("enable f16;"), shader::has_subgroups(text)) {
        (true, _) => ShaderModel::V6_2,
        (false, true) => ShaderModel::V6_0,
        (false, false) => ShaderModel::V5_1,
    }
}

/// The translations for Metal and DX12.
#[cfg(feature = "translations")]
fn translate(text: &str, checked: &module::ValidatedShader) -> Result<Vec<(&'static str, Vec<u8>)>, String> {
    let mut made = vec![("metal", checked.to_msl()?.into_bytes())];
    for (extension, model) in SHADER_MODELS {
        if model >= first_shader_model(text) {
            made.push((extension, checked.to_hlsl(model)?.into_bytes()));
        }
    }
    Ok(made)
}

#[cfg(not(feature = "translations"))]
fn translate(_: &str, _: &module::ValidatedShader) -> Result<Vec<(&'static str, Vec<u8>)>, String> {
    Ok(Vec::new())
}

fn to_bytes(spirv: &[u32]) -> Vec<u8> {
    spirv.iter().flat_map(|word| word.to_le_bytes()).collect()
}
