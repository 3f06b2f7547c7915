//! Compiled kernels by name, parameters, storage types and width.

use std::collections::HashMap;
use std::num::NonZero;
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use smallvec::SmallVec;

use super::fault::catch_errors;
use crate::dtype::DType;
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::kernel::{Access, Launch, Params, shader};

#[derive(PartialEq, Eq, Hash)]
struct Key {
    name: &'static str,
    params: Params,
    dtypes: SmallVec<[DType; 8]>,
    threads: u32,
}

impl Key {
    fn of(launch: &Launch) -> Key {
        Key {
            name: launch.kernel.name,
            params: launch.params,
            dtypes: launch.bindings.iter().map(|b| b.dtype).collect(),
            threads: launch.threads,
        }
    }
}

pub struct Pipeline {
    pub number: u32,
    /// Whether a launch's groups may be divided among several dispatches.
    pub divisible: bool,
    pub compute: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

pub struct Pipelines {
    compiler: Compiler,
    compiled: HashMap<Key, Result<Rc<Pipeline>>>,
}

impl Pipelines {
    /// `checks` makes shaders check every index, which costs a third of their speed.
    pub fn new(device: wgpu::Device, checks: bool, compiler: String) -> Self {
        Pipelines { compiler: Compiler { device, checks, name: compiler }, compiled: HashMap::new() }
    }

    /// Returns a launch's pipeline, which is compiled at its first use. A failure is cached, because a compiler may
    /// take seconds to fail.
    ///
    /// # Errors
    /// `ERR_INTERNAL` for a kernel that does not compile, with the kernel, its variant and the compiler. The error is
    /// confined: the device continues with other work.
    pub fn get(&mut self, launch: &Launch) -> Result<Rc<Pipeline>> {
        let key = Key::of(launch);
        if let Some(pipeline) = self.compiled.get(&key) {
            return pipeline.clone();
        }
        let compiled = self.compiler.compile(launch, &key);
        self.insert(key, compiled)
    }

    /// Compiles the missing pipelines of several launches on as many threads as there are cores: a first start needs
    /// about forty, and some compilers take a quarter of a second for a large one.
    pub fn compile_ahead<'a>(&mut self, launches: impl Iterator<Item = &'a Launch>) {
        let mut missing: Vec<(Key, &Launch)> = Vec::new();
        for launch in launches.filter(|launch| launch.groups > 0) {
            let key = Key::of(launch);
            if !self.compiled.contains_key(&key) && missing.iter().all(|(other, _)| *other != key) {
                missing.push((key, launch));
            }
        }
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let threads = cores.min(missing.len());
        if threads < 2 {
            return;
        }
        let next = AtomicUsize::new(0);
        let results: Vec<OnceLock<Result<Compiled>>> = missing.iter().map(|_| OnceLock::new()).collect();
        let compile_next = || loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some((key, launch)) = missing.get(i) else { break };
            results[i].get_or_init(|| self.compiler.compile(launch, key));
        };
        thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(compile_next))));
        let keys = missing.into_iter().map(|(key, _)| key);
        let done: Vec<_> = keys.zip(results.into_iter().map(OnceLock::into_inner)).collect();
        for (key, result) in done {
            // Its launch reports an error.
            let _ = self.insert(key, result.expect("every index was taken"));
        }
    }

    /// The number of variants that were compiled, with or without success.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.compiled.len()
    }

    fn insert(&mut self, key: Key, compiled: Result<Compiled>) -> Result<Rc<Pipeline>> {
        let number = self.compiled.len() as u32;
        let number_it =
            |Compiled { divisible, compute, layout }| Pipeline { number, divisible, compute, layout };
        let pipeline = compiled.map(|compiled| Rc::new(number_it(compiled))).map_err(Error::confine);
        // A later attempt may find memory, so this failure is not cached.
        if !matches!(&pipeline, Err(error) if error.code == Code::OutOfMemory) {
            self.compiled.insert(key, pipeline.clone());
        }
        pipeline
    }
}

/// A pipeline without its number.
struct Compiled {
    divisible: bool,
    compute: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

/// Compiles kernels, on any thread.
struct Compiler {
    device: wgpu::Device,
    checks: bool,
    /// The shader compiler's name, for errors.
    name: String,
}

impl Compiler {
    fn compile(&self, launch: &Launch, key: &Key) -> Result<Compiled> {
        let kernel = launch.kernel;
        let divisible = shader::is_divisible(kernel);
        let words = shader::count_words(kernel) + usize::from(divisible);
        if words > shader::IMMEDIATE_WORDS {
            fail!(
                Internal,
                "kernel {}: {words} words of immediates, {} at most",
                key.name,
                shader::IMMEDIATE_WORDS
            );
        }
        #[cfg(test)]
        assert!(is_listed(kernel, key), "{} {:?} {:?} is no variant", key.name, key.params, key.dtypes);
        let text = shader::emit_module(kernel, launch.params, &key.dtypes, launch.threads);
        let what = format!(
            "{} did not compile kernel {} {:?} {:?} of {} threads",
            self.name,
            key.name,
            key.params,
            key.dtypes.as_slice(),
            key.threads
        );
        catch_errors(&self.device, &what, || {
            let checks = match self.checks {
                true => wgpu::ShaderRuntimeChecks::checked(),
                false => wgpu::ShaderRuntimeChecks::unchecked(),
            };
            // SAFETY: all kernels are part of this crate and check their own bounds.
            let module = unsafe {
                self.device.create_shader_module_trusted(
                    wgpu::ShaderModuleDescriptor {
                        label: Some(key.name),
                        source: wgpu::ShaderSource::Wgsl(text.into()),
                    },
                    checks,
                )
            };
            let entries: Vec<_> = kernel
                .bindings
                .iter()
                .zip(0..)
                .map(|((_, access), binding)| wgpu::BindGroupLayoutEntry {
                    binding,
                    visibility: wgpu::ShaderStages::COMPUTE,
                    ty: wgpu::BindingType::Buffer {
                        ty: wgpu::BufferBindingType::Storage { read_only: *access == Access::Read },
                        has_dynamic_offset: false,
                        min_binding_size: None,
                    },
                    count: None,
                })
                .collect();
            let layout = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some(key.name),
                entries: &entries,
            });
            let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(key.name),
                bind_group_layouts: &[Some(&layout)],
                immediate_size: words as u32 * 4,
            });
            let compute = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(key.name),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: None,
            });
            Compiled { divisible, compute, layout }
        })
    }
}

/// Whether a launched variant is listed by its kernel, and so validated by tests. Kernels of tests list none.
#[cfg(test)]
fn is_listed(kernel: &crate::kernel::Kernel, key: &Key) -> bool {
    let listed = (kernel.variants)();
    let is_it = |v: &crate::kernel::Variant| {
        v.params == key.params && v.threads == key.threads && v.dtypes[..] == key.dtypes[..]
    };
    listed.is_empty() || listed.iter().any(is_it)
}
