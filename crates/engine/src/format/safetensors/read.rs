//! Reading: the file is mapped, its header is checked, and values are created over the map.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use lowrank_cpu::quant::BlockType;
use lowrank_cpu::quant::pack::{TRAINING_TYPES, pack};

use super::header::{self, Entry};
use super::{Dtype, to_compute_type};
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::format::convert::{convert, widen};
use crate::format::{Access, open_checked, quote};
use crate::mapped_file::MappedFile;

/// A checked file. It stays mapped while the reader or a value in it exists, or until it is unmapped because the file
/// is replaced.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: Arc<MappedFile>,
    entries: Vec<Entry>,
    indices: HashMap<String, usize>,
    metadata: BTreeMap<String, String>,
}

impl Reader {
    /// Maps the file and checks all of its header; the tensors' bytes are not read.
    ///
    /// # Errors
    /// `ERR_FILE_NOT_FOUND`; `ERR_FILE_FORMAT` with the byte offset and the expectation.
    pub fn open(path: impl AsRef<Path>) -> Result<Reader> {
        Reader::open_with(path, Access::Mapped)
    }

    /// Opens a file and checks all of its header.
    ///
    /// # Errors
    /// As for `open`.
    pub fn open_with(path: impl AsRef<Path>, access: Access) -> Result<Reader> {
        let path = path.as_ref();
        let (file, header) = open_checked(path, access, header::parse)?;
        let indices = header.entries.iter().enumerate().map(|(i, e)| (e.name.clone(), i)).collect();
        Ok(Reader { path: path.into(), file, entries: header.entries, indices, metadata: header.metadata })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's metadata.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The tensors in the order of their bytes.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The tensors' names in the order of their bytes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|e| e.name.as_str())
    }

    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.indices.get(name).map(|i| &self.entries[*i])
    }

    /// Calls `use_bytes` with the stored bytes of an entry of this file.
    ///
    /// # Errors
    /// `ERR_FILE_NOT_FOUND` once the file was replaced and unmapped.
    pub fn read<T>(&self, entry: &Entry, use_bytes: impl FnOnce(&[u8]) -> T) -> Result<T> {
        self.file.read(|file| use_bytes(&file[entry.offset as usize..][..entry.bytes as usize]))
    }

    /// A tensor as a value of `cx`: in place over the map if the device can do that; converted on the host if `dtype`
    /// is another float type than the stored one. I64 becomes i32.
    ///
    /// # Errors
    /// `ERR_DTYPE` with the tensor's name if its dtype is not supported, or an I64 exceeds i32; `ERR_FILE_FORMAT` if
    /// the file has no such tensor; `ERR_FILE_NOT_FOUND` as `read`.
    pub fn value(&self, cx: &Rc<Context>, name: &str, dtype: Option<DType>) -> Result<Value> {
        let shown = self.path.display();
        let Some(entry) = self.entry(name) else {
            fail!(FileFormat, "{shown}: there is no tensor {}", quote(name));
        };
        let Some(from) = to_compute_type(entry.dtype) else {
            fail!(
                Dtype,
                "{shown}: tensor {} is {}; F32, F16, BF16, I32 and I64 can be loaded",
                quote(name),
                entry.dtype
            );
        };
        let to = dtype.unwrap_or(from);
        if let DType::Block(kind) = to {
            return self.load_quantised(cx, entry, from, kind);
        }
        if from.is_float() != to.is_float() {
            fail!(Dtype, "{shown}: tensor {} is {} and is not converted to {to}", quote(name), entry.dtype);
        }
        if entry.dtype == Dtype::I64 {
            let Some(narrow) = self.read(entry, narrow_to_i32)? else {
                fail!(Dtype, "{shown}: tensor {} is I64 and holds more than i32 does", quote(name));
            };
            return cx.upload(entry.shape.clone(), DType::I32, narrow);
        }
        if from != to {
            let converted = self.read(entry, |bytes| convert(bytes, from, to))?;
            return cx.upload(entry.shape.clone(), to, converted);
        }
        cx.map(entry.shape.clone(), to, &self.file, entry.offset)
    }
}

impl Reader {
    /// A tensor in blocks of `kind`, quantised on the host.
    fn load_quantised(&self, cx: &Rc<Context>, entry: &Entry, from: DType, kind: BlockType) -> Result<Value> {
        let (shown, to) =
            (format!("{}: tensor {}", self.path.display(), quote(&entry.name)), DType::Block(kind));
        if !from.is_float() || !TRAINING_TYPES.contains(&kind) {
            let types = TRAINING_TYPES.map(BlockType::as_str).join(", ");
            fail!(Dtype, "{shown} is {} and is not quantised to {kind}; floats are, to {types}", entry.dtype);
        }
        if entry.shape.rank() < 2 || !to.divides(&entry.shape) {
            let fits = |kind: &BlockType| DType::Block(*kind).divides(&entry.shape);
            let others: Vec<_> =
                TRAINING_TYPES.iter().filter(|kind| fits(kind)).map(|kind| kind.as_str()).collect();
            fail!(
                Dtype,
                "{shown} of shape {} is no whole blocks of {kind}, which are of {} elements of a row: {}",
                entry.shape,
                kind.elements(),
                match &others[..] {
                    [] => "it can't be quantised".into(),
                    others => format!("choose {}", others.join(" or ")),
                }
            );
        }
        let value = cx.empty(entry.shape.clone(), to)?;
        if !cx.is_meta() {
            let packed = self.read(entry, |bytes| {
                let read = |at: usize, out: &mut [f32]| {
                    let size = from.bytes();
                    widen(&bytes[at * size..][..out.len() * size], from, out);
                };
                pack(kind, entry.shape.size(), &read)
            })?;
            cx.write(&value, packed.map_err(|e| Error::new(Code::Dtype, format!("{shown}: {e}")))?);
        }
        Ok(value)
    }
}

fn narrow_to_i32(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut narrow = Vec::with_capacity(bytes.len() / 2);
    for value in bytes.as_chunks::<8>().0 {
        let value = i32::try_from(i64::from_le_bytes(*value)).ok()?;
        narrow.extend_from_slice(&value.to_le_bytes());
    }
    Some(narrow)
}
