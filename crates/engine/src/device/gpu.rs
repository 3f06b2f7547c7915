//! A GPU through wgpu.
