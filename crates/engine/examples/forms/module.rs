//! A form's module: its WGSL, and what naga makes of it.

use lowrank_engine::kernel::{Kernel, Variant, shader};
use naga::valid::{Capabilities, ModuleInfo, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};

pub fn wgsl(kernel: &Kernel, variant: &Variant) -> String {
    shader::module(kernel, variant.params, &variant.dtypes, variant.threads)
}

pub struct Checked {
    pub module: naga::Module,
    pub info: ModuleInfo,
}

pub fn checked(text: &str) -> Result<Checked, String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .subgroup_stages(ShaderStages::COMPUTE)
        .subgroup_operations(SubgroupOperationSet::all())
        .validate(&module)
        .map_err(|e| e.emit_to_string(text))?;
    Ok(Checked { module, info })
}

impl Checked {
    /// SPIR-V as the device's pipelines have it made: without checks of its own.
    pub fn spirv(&self) -> Result<Vec<u32>, String> {
        use naga::back::spv;
        let options = spv::Options {
            lang_version: (1, 3),
            flags: spv::WriterFlags::empty(),
            bounds_check_policies: Default::default(),
            zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
            force_loop_bounding: false,
            emit_int_div_checks: false,
            ..Default::default()
        };
        let entry =
            spv::PipelineOptions { shader_stage: naga::ShaderStage::Compute, entry_point: "main".into() };
        spv::write_vec(&self.module, &self.info, &options, Some(&entry)).map_err(|e| e.to_string())
    }

    #[cfg(feature = "translations")]
    pub fn msl(&self) -> Result<String, String> {
        use naga::back::msl;
        let options = msl::Options {
            lang_version: (2, 4),
            zero_initialize_workgroup_memory: false,
            force_loop_bounding: false,
            emit_int_div_checks: false,
            ..Default::default()
        };
        let (text, _) = msl::write_string(&self.module, &self.info, &options, &Default::default())
            .map_err(|e| e.to_string())?;
        Ok(text)
    }

    #[cfg(feature = "translations")]
    pub fn hlsl(&self) -> Result<String, String> {
        use naga::back::hlsl;
        let options = hlsl::Options {
            shader_model: hlsl::ShaderModel::V6_2,
            // What DX12 binds; a register of its own for immediates.
            immediates_target: Some(hlsl::BindTarget { space: 1, register: 0, ..Default::default() }),
            fake_missing_bindings: true,
            zero_initialize_workgroup_memory: false,
            force_loop_bounding: false,
            ..Default::default()
        };
        let mut text = String::new();
        hlsl::Writer::new(&mut text, &options, &Default::default())
            .write(&self.module, &self.info, None)
            .map_err(|e| e.to_string())?;
        Ok(text)
    }

    /// Bytes of workgroup memory that the entry point uses.
    pub fn workgroup_bytes(&self) -> u32 {
        let used = self.info.get_entry_point(0);
        let globals = self.module.global_variables.iter();
        globals
            .filter(|(at, global)| global.space == naga::AddressSpace::WorkGroup && !used[*at].is_empty())
            .map(|(_, global)| self.module.types[global.ty].inner.size(self.module.to_ctx()))
            .sum()
    }
}
