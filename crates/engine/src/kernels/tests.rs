//! Every variant of every kernel is valid WGSL, within a device's guaranteed limits, and is launched by a test.

use naga::valid::{Capabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};

use crate::kernel::{Kernel, Variant, coverage, shader};
use crate::{ops, optim};

/// Capabilities that the modules use in addition to the core: immediates; `unpack2x16float`, which requires no feature;
/// and, if the device has them, subgroups and f16.
const CAPABILITIES: Capabilities = Capabilities::IMMEDIATES
    .union(Capabilities::SHADER_FLOAT16_IN_FLOAT32)
    .union(Capabilities::SUBGROUP)
    .union(Capabilities::SHADER_FLOAT16);

#[test]
fn every_variant_is_valid() {
    let mut wrong = Vec::new();
    for kernel in super::list_kernels() {
        // A kernel that only runs natively has no variants.
        for variant in (kernel.variants)() {
            assert!(
                kernel.bindings.len() + (kernel.scalars)().len() <= 31,
                "{}: too many immediates",
                kernel.name
            );
            assert_eq!(variant.dtypes.len(), kernel.bindings.len(), "{}", kernel.name);
            let text = shader::emit_module(kernel, variant.params, &variant.dtypes, variant.threads);
            let result =
                naga::front::wgsl::parse_str(&text).map_err(|e| e.emit_to_string(&text)).and_then(|module| {
                    Validator::new(ValidationFlags::all(), CAPABILITIES)
                        .subgroup_stages(ShaderStages::COMPUTE)
                        .subgroup_operations(SubgroupOperationSet::all())
                        .validate(&module)
                        .map_err(|e| e.emit_to_string(&text))?;
                    Ok(module)
                });
            match result {
                Ok(module) => wrong.extend(describe_excess(kernel, &variant, &module)),
                Err(e) => wrong.push(format!("{} {variant:?}: {e}", kernel.name)),
            }
        }
    }
    assert!(wrong.is_empty(), "{} invalid:\n{}", wrong.len(), wrong[..wrong.len().min(5)].join("\n"));
}

/// WebGPU's guaranteed limits: storage buffers per stage, bytes of workgroup memory, invocations.
const GUARANTEED: [u32; 3] = [8, 16 << 10, 256];

/// Describes how a variant exceeds the guaranteed limits, if it does.
fn describe_excess(kernel: &Kernel, variant: &Variant, module: &naga::Module) -> Option<String> {
    let used = module.entry_points.iter().map(|entry| entry.workgroup_size.iter().product::<u32>());
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).expect("a valid module");
    let (mut bindings, mut bytes) = (std::collections::HashSet::new(), 0);
    for (_, variable) in module.global_variables.iter() {
        match variable.space {
            naga::AddressSpace::WorkGroup => {
                let layout = layouter[variable.ty];
                bytes = layout.alignment.round_up(bytes) + layout.size;
            }
            naga::AddressSpace::Storage { .. } => drop(bindings.insert(variable.binding)),
            _ => {}
        }
    }
    let needs = [bindings.len() as u32, bytes, used.max().unwrap_or(0)];
    let exceeds = needs.iter().zip(GUARANTEED).any(|(needs, guaranteed)| *needs > guaranteed);
    exceeds.then(|| {
        format!(
            "{} {variant:?}: {needs:?} buffers, bytes of workgroup memory and invocations, over {GUARANTEED:?}",
            kernel.name
        )
    })
}

/// The kernels whose variants are all launched by the families' tests.
const COVERED: &[&[&Kernel]] = &[
    super::conv::tests::COVERED,
    super::gemm::tests::COVERED,
    super::gemm::in_f16::tests::COVERED,
    super::softmax::tests::COVERED,
    super::scan::tests::COVERED,
    super::recurrence::tests::COVERED,
    super::reduce::tests::COVERED,
    super::norm::tests::COVERED,
    super::cross_entropy::tests::COVERED,
    super::attention::tests::COVERED,
    super::copy::tests::COVERED,
    super::elementwise::tests::COVERED,
    super::fill::tests::COVERED,
    ops::cast::tests::COVERED,
    ops::dropout::tests::COVERED,
    ops::embedding::tests::COVERED,
    ops::flip::tests::COVERED,
    ops::gather::tests::COVERED,
    ops::max_pool::tests::COVERED,
    ops::pad::tests::COVERED,
    ops::rotary::tests::COVERED,
    ops::sample::tests::COVERED,
    ops::sort::tests::COVERED,
    optim::adamw::tests::COVERED,
    optim::clip::tests::COVERED,
    optim::adafactor::tests::COVERED,
    optim::lion::tests::COVERED,
    optim::sgd::tests::COVERED,
];

#[test]
fn every_kernel_has_a_test_of_all_its_variants() {
    let covered = COVERED.concat();
    let in_list = |list: &[&Kernel], kernel: &Kernel| list.iter().any(|k| k.name == kernel.name);
    // A kernel that only runs natively has no variants.
    let all: Vec<_> = super::list_kernels().into_iter().filter(|k| !(k.variants)().is_empty()).collect();
    let wrong: Vec<_> = all.iter().filter(|k| !in_list(&covered, k)).map(|k| k.name).collect();
    assert!(wrong.is_empty(), "no family's test launches all variants of {wrong:?}");
    let count = |kernels: &[&Kernel]| coverage::list_variants(kernels).len();
    println!(
        "{} variants of {} kernels are listed; tests launch all {} of {} kernels",
        count(&all),
        all.len(),
        count(&covered),
        covered.iter().filter(|k| !(k.variants)().is_empty()).count()
    );
}

/// Compiled pipelines and launched variants are looked up by the kernel's name.
#[test]
fn kernel_names_are_unique() {
    let all = super::list_kernels();
    for (i, kernel) in all.iter().enumerate() {
        assert!(
            all[..i].iter().all(|other| other.name != kernel.name),
            "two kernels are named {}",
            kernel.name
        );
    }
}
