//! The properties of a device that plans depend on.

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Cpu,
    Gpu,
}

/// All properties that a plan may use.
#[derive(Clone, Debug)]
pub struct Profile {
    pub kind: Kind,
    /// The user's name for it: `cpu`, `gpu`, `gpu:1`, `meta:cpu`.
    pub label: String,
    /// The vendor's name for it.
    pub name: String,
    /// Vulkan, Metal, Dx12, or a processor's instruction set.
    pub backend: String,
    /// A GPU implemented in software.
    pub software: bool,
    /// Lanes of the smallest subgroup, if kernels may use subgroups; otherwise 0.
    pub subgroup: u32,
    /// Whether kernels may read f16.
    pub f16: bool,
    /// Whether kernels may compute in f16 (SHADER_F16).
    pub f16_arithmetic: bool,
    /// Bytes that one binding of a kernel may span.
    pub binding_limit: u64,
    /// Bytes of the largest buffer.
    pub buffer_limit: u64,
    /// Bytes that may be in use at once, if known.
    pub memory: u64,
    /// Whether mapped files are read in place.
    pub maps_files: bool,
    pub threads: usize,
}

impl Profile {
    /// The profile of `meta:<label>`: the same plans and the same pool, but nothing runs.
    pub fn to_meta(&self) -> Profile {
        Profile { label: format!("meta:{}", self.label), memory: META_MEMORY, ..self.clone() }
    }
}

/// The memory of a meta device: more than any machine has, so that oversized models get a figure, too.
const META_MEMORY: u64 = 1 << 44;
