//! GGUF files.

use lowrank_engine::error::{self as engine, Code, fail_code};
use lowrank_engine::format::gguf::{List, MetaValue, Reader, RowOrder};
use lowrank_engine::tape::Tensor;
use napi::Env;
use napi::bindgen_prelude::{BigInt, ToNapiValue, Uint8ArraySlice, Unknown};
use napi_derive::napi;

use crate::background;
use crate::error::{Result, to_js_error, wrap_napi_error};
use crate::files::TensorInfo;
use crate::session::{Session, parse_weight_dtype};

/// The largest value, in bytes, that is passed to JavaScript: V8 ends the process on a list that is too long.
const LARGEST: usize = 64 << 20;

/// A GGUF file: tensors by name, and typed metadata.
#[napi]
pub struct GgufFile {
    pub(crate) reader: Reader,
}

#[napi]
impl GgufFile {
    /// Maps the file and checks its header; reads no tensor.
    #[napi(catch_unwind, factory)]
    pub fn open(path: String) -> Result<GgufFile> {
        let reader = background::catch_panic("open", || Reader::open(path)).map_err(to_js_error)?;
        Ok(GgufFile { reader })
    }

    /// Returns the tensors' names in file order.
    #[napi(catch_unwind)]
    pub fn names(&self) -> Result<Vec<String>> {
        self.reader.entries().map(|entry| Ok(entry.map_err(to_js_error)?.name)).collect()
    }

    /// Returns a tensor's entry; its dtype may be a block format, such as `q4_k`.
    #[napi(catch_unwind)]
    pub fn info(&self, name: String) -> Result<TensorInfo> {
        let entry = self.reader.entry(&name).map_err(to_js_error)?;
        Ok(TensorInfo {
            dtype: entry.kind.to_string(),
            shape: entry.shape.iter().map(|d| *d as f64).collect(),
            bytes: entry.bytes as f64,
        })
    }

    /// Returns a tensor's bytes as the file stores them.
    #[napi(catch_unwind)]
    pub fn tensor_bytes<'env>(&self, env: &'env Env, name: String) -> Result<Uint8ArraySlice<'env>> {
        let entry = self.reader.entry(&name).map_err(to_js_error)?;
        let bytes = self.reader.read(&entry, <[u8]>::to_vec).map_err(to_js_error)?;
        Uint8ArraySlice::copy_from(env, &bytes[..]).map_err(wrap_napi_error)
    }

    /// Returns the metadata's keys.
    #[napi(catch_unwind)]
    pub fn keys(&self) -> Result<Vec<String>> {
        self.reader.keys().map(|key| key.map_err(to_js_error)).collect()
    }

    /// Returns a metadata value; integers that no double represents exactly are bigints.
    #[napi(catch_unwind, ts_return_type = "unknown")]
    pub fn metadata<'env>(&self, env: &'env Env, key: String) -> Result<Option<Unknown<'env>>> {
        let place = self.reader.find_range(&key).map_err(to_js_error)?.unwrap_or_default();
        if place.len() > LARGEST {
            let (path, bytes) = (self.reader.path().display(), place.len());
            let what =
                format!("{path}: {key} takes {bytes} bytes, and values are read that take {LARGEST} at most");
            return Err(to_js_error(fail_code(Code::FileFormat, what)));
        }
        self.reader.read_metadata(&key, |value| Ok(to_js_value(env, value))).map_err(to_js_error)?.transpose()
    }

    /// Returns the length of a metadata list of strings; null if the key is missing.
    #[napi(catch_unwind)]
    pub fn text_count(&self, key: String) -> Result<Option<u32>> {
        Ok(self.reader.text_count(&key).map_err(to_js_error)?.map(|count| count as u32))
    }

    /// Returns string `at` of a metadata list; null if the list is shorter.
    #[napi(catch_unwind)]
    pub fn text_at(&self, key: String, at: u32) -> Result<Option<String>> {
        self.reader.text_at(&key, at as usize).map_err(to_js_error)
    }
}

/// A metadata value's byte range in a file: its first byte and the one after its last.
#[napi(object)]
pub struct GgufPlace {
    pub key: String,
    pub start: f64,
    pub end: f64,
}

/// Returns the byte ranges of a GGUF file's metadata values, in file order by key. Neither keeps the file open nor maps
/// it.
#[napi(catch_unwind)]
pub fn gguf_places(path: String) -> Result<Vec<GgufPlace>> {
    let places = || {
        let reader = Reader::open(path)?;
        let place = |key: engine::Result<String>| {
            let key = key?;
            let place = reader.find_range(&key)?.unwrap_or_default();
            Ok(GgufPlace { key, start: place.start as f64, end: place.end as f64 })
        };
        reader.keys().map(place).collect()
    };
    background::catch_panic("places", places).map_err(to_js_error)
}

#[napi]
impl Session {
    /// Loads a frozen tensor. Blocks are unpacked to f32, unless `dtype` is their format. `heads` gives the number of
    /// rotary heads in the rows: it reorders each head from interleaved pairs to halves.
    #[napi(catch_unwind)]
    pub fn gguf_tensor(
        &self,
        file: &GgufFile,
        name: String,
        device: String,
        heads: Option<u32>,
        dtype: Option<String>,
    ) -> Result<u32> {
        self.with_state(|state| {
            let dtype = dtype.as_deref().map(parse_weight_dtype).transpose()?;
            let order = heads.map_or(RowOrder::Stored, |heads| RowOrder::Halves { heads: heads as usize });
            let value = file.reader.value(&state.context(&device)?, &name, dtype, order)?;
            Ok(state.insert(Tensor::new(value, false)))
        })
    }
}

/// The largest integer up to which a double represents every integer.
const SAFE: u64 = (1 << 53) - 1;

/// Converts a metadata value to JavaScript while it is read.
fn to_js_value<'env>(env: &'env Env, value: MetaValue) -> Result<Unknown<'env>> {
    let made = match value {
        MetaValue::Unsigned(n) if n <= SAFE => (n as f64).into_unknown(env),
        MetaValue::Unsigned(n) => BigInt::from(n).into_unknown(env),
        MetaValue::Signed(n) if n.unsigned_abs() <= SAFE => (n as f64).into_unknown(env),
        MetaValue::Signed(n) => BigInt::from(n).into_unknown(env),
        MetaValue::Float(x) => x.into_unknown(env),
        MetaValue::Bool(truth) => truth.into_unknown(env),
        MetaValue::Text(text) => text.into_unknown(env),
        MetaValue::List(list) => return to_js_array(env, list),
    };
    made.map_err(wrap_napi_error)
}

fn to_js_array<'env>(env: &'env Env, list: List) -> Result<Unknown<'env>> {
    let mut array = env.create_array(list.len() as u32).map_err(wrap_napi_error)?;
    for (i, value) in list.enumerate() {
        // Without a scope for each element, all handles would stay alive until the list is complete.
        let set = env.run_in_scope(|| {
            let value = value.map_err(to_js_error).and_then(|value| to_js_value(env, value));
            Ok(value.and_then(|value| array.set(i as u32, value).map_err(wrap_napi_error)))
        });
        set.map_err(wrap_napi_error)??;
    }
    array.into_unknown(env).map_err(wrap_napi_error)
}
