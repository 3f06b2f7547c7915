//! GGUF files.

use lowrank_engine::format::gguf::{MetaValue, Reader, RowOrder};
use lowrank_engine::tape::Tensor;
use napi::bindgen_prelude::{BigInt, ToNapiValue};
use napi::sys;
use napi_derive::napi;

use crate::background;
use crate::error::{Result, thrown};
use crate::files::TensorInfo;
use crate::session::{Session, weight_dtype};

/// A GGUF file: tensors by name, and typed metadata.
#[napi]
pub struct GgufFile {
    pub(crate) reader: Reader,
}

#[napi]
impl GgufFile {
    /// Maps the file and checks its header; no tensor is read.
    #[napi(catch_unwind, factory)]
    pub fn open(path: String) -> Result<GgufFile> {
        let reader = background::guarded("open", || Reader::open(path)).map_err(thrown)?;
        Ok(GgufFile { reader })
    }

    /// The tensors' names, in the order of the file.
    #[napi(catch_unwind)]
    pub fn names(&self) -> Vec<&str> {
        self.reader.entries().iter().map(|entry| entry.name.as_str()).collect()
    }

    /// What the file says of a tensor: its dtype may be a format of blocks, such as `q4_k`.
    #[napi(catch_unwind)]
    pub fn info(&self, name: String) -> Result<TensorInfo> {
        let entry = self.reader.entry(&name).map_err(thrown)?;
        Ok(TensorInfo {
            dtype: entry.kind.to_string(),
            shape: entry.shape.iter().map(|d| *d as f64).collect(),
            bytes: entry.bytes as f64,
        })
    }

    /// The metadata's keys.
    #[napi(catch_unwind)]
    pub fn keys(&self) -> Vec<&str> {
        self.reader.keys().collect()
    }

    /// A value of the metadata; whole numbers that no double holds exactly are bigints.
    #[napi(catch_unwind, ts_return_type = "unknown")]
    pub fn metadata(&self, key: String) -> Result<Option<GgufValue>> {
        Ok(self.reader.metadata(&key).map_err(thrown)?.map(GgufValue))
    }

    /// How many texts a list of the metadata has; null where the file does not have the key.
    #[napi(catch_unwind)]
    pub fn text_count(&self, key: String) -> Result<Option<u32>> {
        Ok(self.reader.text_count(&key).map_err(thrown)?.map(|count| count as u32))
    }

    /// Text number `at` of a list of the metadata; null where there are not as many.
    #[napi(catch_unwind)]
    pub fn text_at(&self, key: String, at: u32) -> Result<Option<String>> {
        self.reader.text_at(&key, at as usize).map_err(thrown)
    }
}

/// The bytes of a file that a value of its metadata takes: the first, and that after the last.
#[napi(object)]
pub struct GgufPlace {
    pub key: String,
    pub start: f64,
    pub end: f64,
}

/// Where a GGUF file has its metadata, by key in order. The file is not kept open, nor mapped.
#[napi(catch_unwind)]
pub fn gguf_places(path: String) -> Result<Vec<GgufPlace>> {
    let places = || {
        let reader = Reader::open(path)?;
        let place = |key: &str| {
            let place = reader.place(key)?.unwrap_or_default();
            Ok(GgufPlace { key: key.into(), start: place.start as f64, end: place.end as f64 })
        };
        reader.keys().map(place).collect()
    };
    background::guarded("places", places).map_err(thrown)
}

#[napi]
impl Session {
    /// A frozen tensor of a file; blocks are unpacked to f32, unless `dtype` is theirs. With `heads` its rows are those
    /// of rotary heads whose pairs
    /// are neighbours, and become halves.
    #[napi(catch_unwind)]
    pub fn gguf_tensor(
        &self,
        file: &GgufFile,
        name: String,
        device: String,
        heads: Option<u32>,
        dtype: Option<String>,
    ) -> Result<u32> {
        self.with(|state| {
            let dtype = dtype.as_deref().map(weight_dtype).transpose()?;
            let order = heads.map_or(RowOrder::Stored, |heads| RowOrder::Halves { heads: heads as usize });
            let value = file.reader.value(&state.context(&device)?, &name, dtype, order)?;
            Ok(state.insert(Tensor::new(value, false)))
        })
    }
}

/// A value of the metadata, as JavaScript has it.
pub struct GgufValue(MetaValue);

/// The largest whole number below which a double holds all.
const SAFE: u64 = (1 << 53) - 1;

impl ToNapiValue for GgufValue {
    unsafe fn to_napi_value(env: sys::napi_env, value: Self) -> napi::Result<sys::napi_value> {
        // SAFETY: the caller's.
        unsafe {
            match value.0 {
                MetaValue::Unsigned(n) if n <= SAFE => f64::to_napi_value(env, n as f64),
                MetaValue::Unsigned(n) => BigInt::to_napi_value(env, n.into()),
                MetaValue::Signed(n) if n.unsigned_abs() <= SAFE => f64::to_napi_value(env, n as f64),
                MetaValue::Signed(n) => BigInt::to_napi_value(env, n.into()),
                MetaValue::Float(x) => f64::to_napi_value(env, x),
                MetaValue::Bool(truth) => bool::to_napi_value(env, truth),
                MetaValue::Text(text) => String::to_napi_value(env, text),
                MetaValue::List(values) => {
                    let values: Vec<GgufValue> = values.into_iter().map(GgufValue).collect();
                    Vec::to_napi_value(env, values)
                }
            }
        }
    }
}
