//! What plans know of a device.

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Cpu,
    Gpu,
}

/// All that a plan may look at.
#[derive(Clone, Debug)]
pub struct Profile {
    pub kind: Kind,
    /// As the user names it: `cpu`, `gpu`, `gpu:1`, `meta:cpu`.
    pub label: String,
    /// As the vendor names it.
    pub name: String,
    /// Vulkan, Metal, Dx12, or the instruction set of a processor.
    pub backend: String,
    /// A GPU implemented in software.
    pub software: bool,
    /// Lanes of the smallest subgroup, where kernels may use them; else 0.
    pub subgroup: u32,
    /// Whether kernels may read f16.
    pub f16: bool,
    /// Whether kernels may hold f16 (SHADER_F16).
    pub f16_arithmetic: bool,
    /// Bytes that one binding of a kernel may span.
    pub binding_limit: u64,
    /// Bytes of the largest buffer.
    pub buffer_limit: u64,
    /// Bytes that may be in use at once, as far as is known.
    pub memory: u64,
    /// Whether mapped files are read in place.
    pub maps_files: bool,
    pub threads: usize,
}

impl Profile {
    /// That of `meta:<label>`: the same plans and the same pool, and nothing runs.
    pub fn meta(&self) -> Profile {
        Profile { label: format!("meta:{}", self.label), memory: META_MEMORY, ..self.clone() }
    }
}

/// What a meta device counts at most: more than any machine has, so that what does not fit has its number, too.
const META_MEMORY: u64 = 1 << 44;
