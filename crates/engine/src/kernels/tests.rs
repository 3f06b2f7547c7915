//! Every form of every kernel is valid WGSL, within what a device takes.

use naga::valid::{Capabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};

use crate::kernel::shader;

/// What the modules use beyond the core: immediates, `unpack2x16float`, which asks for no feature, and
/// where the device has them, subgroups and words of 64 bits.
const CAPABILITIES: Capabilities = Capabilities::IMMEDIATES
    .union(Capabilities::SHADER_FLOAT16_IN_FLOAT32)
    .union(Capabilities::SUBGROUP)
    .union(Capabilities::SHADER_INT64);

#[test]
fn every_variant_is_valid() {
    let mut wrong = Vec::new();
    for kernel in super::all() {
        // A kernel that only runs natively has no variants.
        for variant in (kernel.variants)() {
            assert!(
                kernel.bindings.len() + (kernel.scalars)().len() <= 31,
                "{}: too many immediates",
                kernel.name
            );
            assert_eq!(variant.dtypes.len(), kernel.bindings.len(), "{}", kernel.name);
            let text = shader::module(kernel, variant.params, &variant.dtypes, variant.threads);
            let result =
                naga::front::wgsl::parse_str(&text).map_err(|e| e.emit_to_string(&text)).and_then(|module| {
                    Validator::new(ValidationFlags::all(), CAPABILITIES)
                        .subgroup_stages(ShaderStages::COMPUTE)
                        .subgroup_operations(SubgroupOperationSet::all())
                        .validate(&module)
                        .map_err(|e| e.emit_to_string(&text))
                });
            if let Err(e) = result {
                wrong.push(format!("{} {variant:?}: {e}", kernel.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{} invalid:\n{}", wrong.len(), wrong[..wrong.len().min(5)].join("\n"));
}
