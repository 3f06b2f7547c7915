//! A model's weights: one file, or shards listed by an index, as one view.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use serde::Deserialize;

use super::json::{self, Unique};
use super::safetensors::{Entry, Reader};
use super::{Access, quote, read_file};
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::{Code, Error, Result};
use crate::fail;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Tensors by name, whichever shard they are in.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    shards: Vec<Reader>,
    indices: HashMap<String, usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: Unique<String>,
}

impl Weights {
    /// Opens a safetensors file, an index (`….index.json`), or a folder that holds
    /// `model.safetensors` or `model.safetensors.index.json`.
    ///
    /// # Errors
    /// `ERR_FILE_NOT_FOUND` for a missing file, a folder without either, or a missing shard; `ERR_FILE_FORMAT` for a
    /// shard's errors, and if index and shards disagree.
    pub fn open(path: impl AsRef<Path>) -> Result<Weights> {
        Weights::open_with(path, Access::Mapped)
    }

    /// Opens the files as `open` does, mapped or in memory.
    ///
    /// # Errors
    /// As for `open`.
    pub fn open_with(path: impl AsRef<Path>, access: Access) -> Result<Weights> {
        let path = path.as_ref();
        if path.is_dir() {
            let (single, index) = (path.join(SINGLE), path.join(INDEX));
            return if single.exists() {
                Weights::open_single(&single, access)
            } else if index.exists() {
                Weights::open_sharded(&index, access)
            } else {
                fail!(FileNotFound, "{}: contains neither {SINGLE} nor {INDEX}", path.display())
            };
        }
        if path.extension().is_some_and(|e| e == "json") {
            return Weights::open_sharded(path, access);
        }
        Weights::open_single(path, access)
    }

    fn open_single(path: &Path, access: Access) -> Result<Weights> {
        let reader = Reader::open_with(path, access)?;
        let indices = reader.names().map(|name| (name.to_string(), 0)).collect();
        Ok(Weights { path: path.into(), shards: vec![reader], indices })
    }

    fn open_sharded(path: &Path, access: Access) -> Result<Weights> {
        let shown = path.display();
        let index: Index = match json::parse(&read_file(path)?) {
            Ok(index) => index,
            Err(fault) => fail!(FileFormat, "{shown}: at byte {}: {}", fault.offset, fault.what),
        };
        let listed = index.weight_map.0;
        let mut files: BTreeMap<&str, usize> = listed.values().map(|file| (file.as_str(), 0)).collect();
        let mut shards = Vec::with_capacity(files.len());
        for (file, shard_index) in &mut files {
            let mut parts = Path::new(file).components();
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                fail!(FileFormat, "{shown}: a file of the same folder was expected, not {}", quote(file));
            }
            let shard = path.with_file_name(file);
            if !shard.exists() {
                fail!(FileNotFound, "{}: there is no such file, and {shown} lists it", shard.display());
            }
            *shard_index = shards.len();
            shards.push(Reader::open_with(shard, access)?);
        }
        let mut indices = HashMap::with_capacity(listed.len());
        for (name, file) in &listed {
            let shard_index = files[file.as_str()];
            if shards[shard_index].entry(name).is_none() {
                let shard = shards[shard_index].path().display();
                fail!(FileFormat, "{shard}: there is no tensor {}, and {shown} says so", quote(name));
            }
            indices.insert(name.clone(), shard_index);
        }
        for (shard_index, shard) in shards.iter().enumerate() {
            if let Some(name) = shard.names().find(|name| indices.get(*name) != Some(&shard_index)) {
                let shard = shard.path().display();
                fail!(FileFormat, "{shard}: {shown} does not list its tensor {}", quote(name));
            }
        }
        Ok(Weights { path: path.into(), shards, indices })
    }

    /// The file or the index that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn shards(&self) -> &[Reader] {
        &self.shards
    }

    /// The names, shard by shard in the order of their bytes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.shards.iter().flat_map(|shard| shard.names())
    }

    /// The shard that holds a tensor, and the tensor.
    pub fn find(&self, name: &str) -> Option<(&Reader, &Entry)> {
        let shard = &self.shards[*self.indices.get(name)?];
        shard.entry(name).map(|entry| (shard, entry))
    }

    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.find(name).map(|(_, entry)| entry)
    }

    /// The metadata of the shards; the first shard's where they differ.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let all = self.shards.iter().rev().flat_map(|shard| shard.metadata());
        all.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// As for `Reader::value`.
    ///
    /// # Errors
    /// As for `Reader::value`.
    pub fn value(&self, cx: &Rc<Context>, name: &str, dtype: Option<DType>) -> Result<Value> {
        match self.find(name) {
            Some((shard, _)) => shard.value(cx, name, dtype),
            None => Err(self.missing_error(name)),
        }
    }

    /// The error for a missing name.
    pub fn missing_error(&self, name: &str) -> Error {
        let what = format!("{}: there is no tensor {}", self.path.display(), quote(name));
        Error::new(Code::FileFormat, what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::safetensors::{Dtype, TensorData, write};
    use crate::format::test_folder::TestFolder;
    use crate::ops::checks::{contexts, read};

    /// Writes a shard with one f32 per name, each `value`.
    fn write_shard(folder: &TestFolder, file: &str, names: &[&str], value: f32) {
        let bytes = value.to_le_bytes();
        let part = |name| TensorData { name, dtype: Dtype::F32, shape: &[1], bytes: &bytes };
        let parts: Vec<TensorData> = names.iter().copied().map(part).collect();
        write(&folder.join(file), &parts, None).unwrap();
    }

    fn make_index(weight_map: &str) -> String {
        format!(r#"{{"metadata":{{"total_size":12}},"weight_map":{weight_map}}}"#)
    }

    #[test]
    fn shards_are_read_like_one_file() {
        let folder = TestFolder::new();
        write_shard(&folder, "1.safetensors", &["b", "a"], 1.0);
        write_shard(&folder, "2.safetensors", &["c"], 2.0);
        let map = r#"{"c":"2.safetensors","a":"1.safetensors","b":"1.safetensors"}"#;
        let file = folder.file(INDEX, make_index(map));
        for weights in [Weights::open(&*folder).unwrap(), Weights::open(file).unwrap()] {
            assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "b", "c"]);
            assert_eq!(weights.shards().len(), 2);
            for cx in contexts() {
                assert_eq!(read(&weights.value(&cx, "a", None).unwrap()).data, [1.0]);
                assert_eq!(read(&weights.value(&cx, "c", None).unwrap()).data, [2.0]);
                let error = weights.value(&cx, "d", None).unwrap_err();
                assert_eq!(error.code, Code::FileFormat);
                assert!(error.message.ends_with("there is no tensor \"d\""), "{error}");
            }
        }
        // A single file has priority, as in transformers.
        write_shard(&folder, SINGLE, &["a"], 3.0);
        let weights = Weights::open(&*folder).unwrap();
        assert_eq!(weights.names().collect::<Vec<_>>(), ["a"]);
        assert_eq!(weights.path(), folder.join(SINGLE));
    }

    #[test]
    fn an_index_that_contradicts_its_shards_is_refused() {
        let folder = TestFolder::new();
        write_shard(&folder, "1.safetensors", &["a", "b"], 1.0);
        let expect_refusal = |text: &str, code: Code, what: &str| {
            folder.file(INDEX, text);
            let error = Weights::open(&*folder).unwrap_err();
            assert_eq!(error.code, code, "{error}");
            assert!(error.message.contains(what), "{error}");
            assert_eq!(error.message.lines().count(), 1, "{error}");
        };
        let both = r#"{"a":"1.safetensors","b":"1.safetensors","c":"2.safetensors"}"#;
        expect_refusal(&make_index(both), Code::FileNotFound, "2.safetensors: there is no such file, and ");
        let more = r#"{"a":"1.safetensors","b":"1.safetensors","c":"1.safetensors"}"#;
        expect_refusal(&make_index(more), Code::FileFormat, "1.safetensors: there is no tensor \"c\", and ");
        expect_refusal(
            &make_index(r#"{"a":"1.safetensors"}"#),
            Code::FileFormat,
            "does not list its tensor \"b\"",
        );
        for outside in ["../1.safetensors", "/etc/passwd", "a/b", "", ".."] {
            let map = format!(r#"{{"a":"{outside}"}}"#);
            expect_refusal(&make_index(&map), Code::FileFormat, "a file of the same folder was expected");
        }
        expect_refusal(
            &make_index(r#"{"a":1}"#),
            Code::FileFormat,
            "at byte 48: invalid type: integer `1`, expected a string",
        );
        expect_refusal(&make_index(r#"{"a":"x","a":"y"}"#), Code::FileFormat, "duplicate key \"a\"");
        expect_refusal("{}", Code::FileFormat, "missing field `weight_map`");
        expect_refusal("{", Code::FileFormat, "at byte 1: EOF");
        expect_refusal("", Code::FileFormat, "at byte 0: EOF");
        folder.file("1.safetensors", "short");
        expect_refusal(
            &make_index(r#"{"a":"1.safetensors"}"#),
            Code::FileFormat,
            "1.safetensors: at byte 5: cut off",
        );
    }

    #[test]
    fn a_folder_without_weights_is_refused() {
        let folder = TestFolder::new();
        for path in [folder.to_path_buf(), folder.join("none")] {
            assert_eq!(Weights::open(path).unwrap_err().code, Code::FileNotFound);
        }
    }
}
