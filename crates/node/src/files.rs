//! Weight files. Reading maps them and checks their headers; writing happens on a background thread.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use lowrank_engine::dtype::DType;
use lowrank_engine::error as engine;
use lowrank_engine::format::Access;
use lowrank_engine::format::safetensors::{self, TensorData, to_file_type};
use lowrank_engine::format::weights::Weights;
use lowrank_engine::mapped_file;
use lowrank_engine::staged_file::StagedFile;
use lowrank_engine::tape::Tensor;
use napi::Env;
use napi::bindgen_prelude::{Either, Object, Uint8Array};
use napi_derive::napi;

use crate::background;
use crate::error::{Result, to_js_error};
use crate::session::{Failure, Session, parse_dtype, parse_shape, parse_weight_dtype, to_failure};

/// A safetensors file, or all shards of a model's folder as one file.
#[napi]
pub struct WeightsFile {
    weights: Weights,
}

/// A tensor's entry in a file's header.
#[napi(object)]
pub struct TensorInfo {
    /// The engine's name for a dtype that it computes with; otherwise the file's name in lower case, such as f64, u8 or
    /// bool.
    pub dtype: String,
    pub shape: Vec<f64>,
    pub bytes: f64,
}

#[napi]
impl WeightsFile {
    /// Maps the files and checks their headers; reads no tensor.
    #[napi(catch_unwind, factory)]
    pub fn open(path: String) -> Result<WeightsFile> {
        WeightsFile::open_with(path, Access::Mapped)
    }

    /// Reads the files into memory, so that later changes of them have no effect, and checks their headers.
    #[napi(catch_unwind, factory)]
    pub fn read(path: String) -> Result<WeightsFile> {
        WeightsFile::open_with(path, Access::InMemory)
    }

    #[napi(catch_unwind)]
    pub fn names(&self) -> Vec<&str> {
        self.weights.names().collect()
    }

    #[napi(catch_unwind)]
    pub fn info(&self, name: String) -> Result<TensorInfo> {
        let entry =
            self.weights.entry(&name).ok_or_else(|| to_js_error(self.weights.missing_error(&name)))?;
        Ok(TensorInfo {
            dtype: entry.dtype.to_string().to_lowercase(),
            shape: entry.shape.iter().map(|d| *d as f64).collect(),
            bytes: entry.bytes as f64,
        })
    }

    /// Returns the text metadata of the files, by key.
    #[napi(catch_unwind)]
    pub fn metadata(&self) -> HashMap<String, String> {
        self.weights.metadata().into_iter().collect()
    }
}

impl WeightsFile {
    fn open_with(path: String, access: Access) -> Result<WeightsFile> {
        let opened = background::catch_panic("open", || Weights::open_with(path, access));
        Ok(WeightsFile { weights: opened.map_err(to_js_error)? })
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }
}

#[napi]
impl Session {
    /// Loads a frozen tensor: in place on the cpu, uploaded on other devices; converted or quantised if `dtype` differs
    /// from the stored dtype.
    #[napi(catch_unwind)]
    pub fn map_tensor(
        &self,
        file: &WeightsFile,
        name: String,
        device: String,
        dtype: Option<String>,
    ) -> Result<u32> {
        self.with_state(|state| {
            let dtype = dtype.as_deref().map(parse_weight_dtype).transpose()?;
            let value = file.weights().value(&state.context(&device)?, &name, dtype)?;
            Ok(state.insert(Tensor::new(value, false)))
        })
    }
}

/// A tensor to write. Its bytes must not change until the promise settles.
#[napi(object, object_to_js = false)]
pub struct FileEntry {
    pub name: String,
    pub dtype: String,
    pub shape: Vec<f64>,
    pub bytes: Uint8Array,
}

/// Writes a safetensors file to a staging file, then renames it.
#[napi(catch_unwind, ts_return_type = "Promise<null | Failure>")]
pub fn write_safetensors<'env>(
    env: &'env Env,
    path: String,
    entries: Vec<FileEntry>,
    metadata: Option<HashMap<String, String>>,
) -> Result<Object<'env>> {
    let metadata: Option<BTreeMap<String, String>> = metadata.map(|m| m.into_iter().collect());
    background::run_for_null(env, "write", move || {
        let shapes: Vec<(DType, Vec<usize>)> = entries
            .iter()
            .map(|e| Ok((parse_dtype(&e.dtype)?, parse_shape(&e.shape)?)))
            .collect::<engine::Result<_>>()?;
        let parts: Vec<TensorData> = entries
            .iter()
            .zip(&shapes)
            .map(|(e, (dtype, shape))| {
                Ok(TensorData { name: &e.name, dtype: to_file_type(*dtype)?, shape, bytes: &e.bytes })
            })
            .collect::<engine::Result<_>>()?;
        safetensors::write(Path::new(&path), &parts, metadata.as_ref())
    })
}

/// Writes a file atomically.
#[napi(catch_unwind, ts_return_type = "Promise<null | Failure>")]
pub fn write_file<'env>(env: &'env Env, path: String, bytes: Uint8Array) -> Result<Object<'env>> {
    background::run_for_null(env, "write", move || {
        let mut file = StagedFile::create(Path::new(&path))?;
        file.write(&bytes)?;
        file.finish()
    })
}

/// Unmaps a file, or all files below a folder, in every environment of the process. Tensors in them keep their values.
/// Returns the number of mappings.
#[napi(catch_unwind, ts_return_type = "Promise<number | Failure>")]
pub fn release_mapped(env: &Env, path: String) -> Result<Object<'_>> {
    background::run_as_promise(
        env,
        "release",
        move || mapped_file::release(Path::new(&path)),
        |_, released| {
            Ok(match released {
                Ok(count) => Either::A(count as u32),
                Err(error) => Either::B::<_, Failure>(to_failure(error)),
            })
        },
    )
}
