//! A variant's module: its WGSL, and naga's translations.

use lowrank_engine::kernel::{Kernel, Variant, shader};
use naga::valid::{Capabilities, ModuleInfo, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};

pub fn generate_wgsl(kernel: &Kernel, variant: &Variant) -> String {
    shader::emit_module(kernel, variant.params, &variant.dtypes, variant.threads)
}

pub struct ValidatedShader {
    pub module: naga::Module,
    pub info: ModuleInfo,
}

pub fn validate(text: &str) -> Result<ValidatedShader, String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .subgroup_stages(ShaderStages::COMPUTE)
        .subgroup_operations(SubgroupOperationSet::all())
        .validate(&module)
        .map_err(|e| e.emit_to_string(text))?;
    Ok(ValidatedShader { module, info })
}

impl ValidatedShader {
    /// SPIR-V with the options of the device's pipelines: without checks.
    pub fn to_spirv(&self) -> Result<Vec<u32>, String> {
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
    pub fn to_msl(&self) -> Result<String, String> {
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

    /// HLSL of one shader model, with the options and the root signature's registers of wgpu-hal 30's DX12 backend for
    /// an unchecked module.
    #[cfg(feature = "translations")]
    pub fn to_hlsl(&self, shader_model: naga::back::hlsl::ShaderModel) -> Result<String, String> {
        use naga::back::hlsl;
        let mut bound: Vec<(naga::ResourceBinding, bool)> = Vec::new();
        for (_, global) in self.module.global_variables.iter() {
            if let (Some(at), naga::AddressSpace::Storage { access }) = (global.binding, global.space) {
                bound.push((at, access.contains(naga::StorageAccess::STORE)));
            }
        }
        bound.sort_by_key(|(at, _)| (at.group, at.binding));
        // A binding that is declared twice (elements and vectors) has one register.
        bound.dedup_by_key(|(at, _)| (at.group, at.binding));
        let mut binding_map = hlsl::BindingMap::default();
        let (mut read, mut written) = (0, 0);
        for (at, is_written) in bound {
            let register = if is_written { &mut written } else { &mut read };
            binding_map.insert(at, hlsl::BindTarget { register: *register, ..Default::default() });
            *register += 1;
        }
        let options = hlsl::Options {
            shader_model,
            binding_map,
            fake_missing_bindings: false,
            immediates_target: Some(hlsl::BindTarget::default()),
            special_constants_binding: Some(hlsl::BindTarget { space: 1, register: 1, ..Default::default() }),
            zero_initialize_workgroup_memory: false,
            restrict_indexing: false,
            force_loop_bounding: false,
            ray_query_initialization_tracking: false,
            mesh_shader_primitive_indices_clamp: false,
            ..Default::default()
        };
        let entry = (naga::ShaderStage::Compute, "main".to_string());
        let pipeline = hlsl::PipelineOptions { entry_point: Some(entry) };
        let mut text = String::new();
        let reflection = hlsl::Writer::new(&mut text, &options, &pipeline)
            .write(&self.module, &self.info, None)
            .map_err(|e| e.to_string())?;
        let entry = reflection.entry_point_names[0].as_ref().map_err(|e| e.to_string())?;
        let mut types = self.module.types.iter();
        let has_f16 = types.any(|(_, ty)| ty.inner.scalar_width() == Some(2));
        // Facts that a compiler needs in addition.
        Ok(format!("// entry {entry}{}\n{text}", if has_f16 { " // 16-bit" } else { "" }))
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
