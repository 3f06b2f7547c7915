//! Files of weights. Reading maps them and checks their headers; writing is on a thread of its
//! own.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use lowrank_engine::dtype::DType;
use lowrank_engine::error as engine;
use lowrank_engine::format::safetensors::{self, Part, stored};
use lowrank_engine::format::weights::Weights;
use lowrank_engine::mapped_file;
use lowrank_engine::tape::Tensor;
use lowrank_engine::whole_file::WholeFile;
use napi::Env;
use napi::bindgen_prelude::{Either, Object, Uint8Array};
use napi_derive::napi;

use crate::background;
use crate::error::{Result, thrown};
use crate::session::{Failure, Session, dims, dtype, failure, weight_dtype};

/// A safetensors file, or the shards of a model's folder behind one view.
#[napi]
pub struct WeightsFile {
    weights: Weights,
}

/// What a file says of a tensor.
#[napi(object)]
pub struct TensorInfo {
    /// As the engine names it where it computes with it, and as such in small letters elsewhere:
    /// f64, u8, bool, …
    pub dtype: String,
    pub shape: Vec<f64>,
    pub bytes: f64,
}

#[napi]
impl WeightsFile {
    /// Maps the files and checks their headers; no tensor is read.
    #[napi(catch_unwind, factory)]
    pub fn open(path: String) -> Result<WeightsFile> {
        let weights = background::guarded("open", || Weights::open(path)).map_err(thrown)?;
        Ok(WeightsFile { weights })
    }

    #[napi(catch_unwind)]
    pub fn names(&self) -> Vec<&str> {
        self.weights.names().collect()
    }

    #[napi(catch_unwind)]
    pub fn info(&self, name: String) -> Result<TensorInfo> {
        let entry = self.weights.entry(&name).ok_or_else(|| thrown(self.weights.missing(&name)))?;
        Ok(TensorInfo {
            dtype: entry.dtype.to_string().to_lowercase(),
            shape: entry.shape.iter().map(|d| *d as f64).collect(),
            bytes: entry.bytes as f64,
        })
    }

    /// The free text of the files, by key.
    #[napi(catch_unwind)]
    pub fn metadata(&self) -> HashMap<String, String> {
        self.weights.metadata().into_iter().collect()
    }
}

impl WeightsFile {
    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }
}

#[napi]
impl Session {
    /// A frozen tensor of a file: in place on the cpu, uploaded elsewhere; converted or quantised where another
    /// dtype than the stored one is asked for.
    #[napi(catch_unwind)]
    pub fn map_tensor(
        &self,
        file: &WeightsFile,
        name: String,
        device: String,
        dtype: Option<String>,
    ) -> Result<u32> {
        self.with(|state| {
            let dtype = dtype.as_deref().map(weight_dtype).transpose()?;
            let value = file.weights().value(&state.context(&device)?, &name, dtype)?;
            Ok(state.insert(Tensor::new(value, false)))
        })
    }
}

/// A tensor to be written. Its bytes must not change until the promise settles.
#[napi(object, object_to_js = false)]
pub struct FileEntry {
    pub name: String,
    pub dtype: String,
    pub shape: Vec<f64>,
    pub bytes: Uint8Array,
}

/// Writes a safetensors file: beside, then renamed into place.
#[napi(catch_unwind, ts_return_type = "Promise<null | Failure>")]
pub fn write_safetensors<'env>(
    env: &'env Env,
    path: String,
    entries: Vec<FileEntry>,
    metadata: Option<HashMap<String, String>>,
) -> Result<Object<'env>> {
    let metadata: Option<BTreeMap<String, String>> = metadata.map(|m| m.into_iter().collect());
    background::done(env, "write", move || {
        let shapes: Vec<(DType, Vec<usize>)> =
            entries.iter().map(|e| Ok((dtype(&e.dtype)?, dims(&e.shape)?))).collect::<engine::Result<_>>()?;
        let parts: Vec<Part> = entries
            .iter()
            .zip(&shapes)
            .map(|(e, (dtype, shape))| {
                Ok(Part { name: &e.name, dtype: stored(*dtype)?, shape, bytes: &e.bytes })
            })
            .collect::<engine::Result<_>>()?;
        safetensors::write(Path::new(&path), &parts, metadata.as_ref())
    })
}

/// Writes a file whole or not at all.
#[napi(catch_unwind, ts_return_type = "Promise<null | Failure>")]
pub fn write_file<'env>(env: &'env Env, path: String, bytes: Uint8Array) -> Result<Object<'env>> {
    background::done(env, "write", move || {
        let mut file = WholeFile::create(Path::new(&path))?;
        file.write(&bytes)?;
        file.finish()
    })
}

/// Lets go of what any environment of the process has mapped of a file, or of the files below a folder: tensors that
/// lie in them keep their values. Gives how many maps there were.
#[napi(catch_unwind, ts_return_type = "Promise<number | Failure>")]
pub fn release_mapped(env: &Env, path: String) -> Result<Object<'_>> {
    background::promise(
        env,
        "release",
        move || mapped_file::release(Path::new(&path)),
        |_, released| {
            Ok(match released {
                Ok(count) => Either::A(count as u32),
                Err(error) => Either::B::<_, Failure>(failure(error)),
            })
        },
    )
}
