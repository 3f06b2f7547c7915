//! Reading: the file is mapped, its header is checked, and values are created over the map.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use lowrank_cpu::quant::unpack;

use super::cursor::Cursor;
use super::header::Header;
use super::metadata::{self, MetaValue, Numbers, Texts};
use super::tensors::{Entry, TensorType};
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::format::convert::convert;
use crate::format::{Access, json::Fault, open_checked, quote};
use crate::mapped_file::MappedFile;

/// The order of a tensor's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOrder {
    /// As stored.
    Stored,
    /// For each of `heads` heads the even rows, then the odd ones: some models' files rotate adjacent rows of a head,
    /// and here rotary embedding rotates its halves.
    Halves { heads: usize },
}

/// A checked file. It stays mapped while the reader or a value in it exists, or until it is unmapped because the file
/// is replaced.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: Arc<MappedFile>,
    header: Header,
}

impl Reader {
    /// Maps the file and checks all of its header; the tensors' bytes are not read.
    ///
    /// # Errors
    /// `ERR_FILE_NOT_FOUND`; `ERR_FILE_FORMAT` with the byte offset and the expectation.
    pub fn open(path: impl AsRef<Path>) -> Result<Reader> {
        let path = path.as_ref();
        let (file, header) = open_checked(path, Access::Mapped, Header::parse)?;
        Ok(Reader { path: path.into(), file, header })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors in the order of the file, each read on demand.
    ///
    /// # Errors
    /// `ERR_FILE_NOT_FOUND` once the file was replaced and unmapped.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry>> {
        let mut at = self.header.first_tensor;
        (0..self.header.tensors.len()).map(move |_| {
            self.with_bytes(|file| {
                let mut cursor = Cursor::new(file, at);
                let entry = self.header.data.read_entry(&mut cursor);
                at = cursor.offset();
                entry
            })
        })
    }

    /// A tensor by its name.
    ///
    /// # Errors
    /// `ERR_FILE_FORMAT` if the file has no tensor of that name; `ERR_FILE_NOT_FOUND` as `entries`.
    pub fn entry(&self, name: &str) -> Result<Entry> {
        let Some(entry) = self.with_bytes(|file| self.header.find_entry(file, name))? else {
            fail!(FileFormat, "{}: there is no tensor {}", self.path.display(), quote(name));
        };
        Ok(entry)
    }

    /// The keys of the metadata, sorted, each read from the file on demand.
    ///
    /// # Errors
    /// As for `entries`.
    pub fn keys(&self) -> impl Iterator<Item = Result<String>> {
        let keys = &self.header.keys;
        (0..keys.len()).map(|i| self.with_bytes(|file| keys.read(file, i).map(String::from)))
    }

    /// Calls `use_value` with a value of the metadata; `None` if the file does not have the key. The file is locked
    /// meanwhile, so `use_value` must not use the reader.
    ///
    /// # Errors
    /// The errors of `use_value`; `ERR_FILE_NOT_FOUND` as for `entries`.
    pub fn read_metadata<T>(
        &self,
        key: &str,
        use_value: impl FnOnce(MetaValue<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        self.read_value(key, |cursor| metadata::read(&self.path, cursor).map(use_value))?.transpose()
    }

    /// Calls `use_value` with the texts of a list of the metadata; `None` if the file does not have the key.
    ///
    /// # Errors
    /// `ERR_FILE_FORMAT` if the value is not a list of texts; as `read_metadata`.
    pub fn read_texts<T>(
        &self,
        key: &str,
        use_value: impl FnOnce(Texts<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        self.read_metadata(key, |value| {
            metadata::as_texts(value).map_or_else(|| self.list_error(key, "texts"), use_value)
        })
    }

    /// The number of texts in a list of the metadata, without reading them. Errors as of `read_texts`.
    pub fn text_count(&self, key: &str) -> Result<Option<usize>> {
        self.read_texts(key, |texts| Ok(texts.len()))
    }

    /// Text `at` of a list of the metadata; `None` if the list is shorter. Errors as of `read_texts`.
    pub fn text_at(&self, key: &str, at: usize) -> Result<Option<String>> {
        let text = self.read_texts(key, |mut texts| Ok(texts.nth(at).transpose()?.map(String::from)))?;
        Ok(text.flatten())
    }

    /// Calls `use_value` with the numbers of a list of the metadata; `None` if the file does not have the key. Errors
    /// as of
    /// `read_texts`.
    pub fn read_numbers<T>(
        &self,
        key: &str,
        use_value: impl FnOnce(Numbers<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        self.read_metadata(key, |value| {
            metadata::as_numbers(value).map_or_else(|| self.list_error(key, "numbers"), use_value)
        })
    }

    fn list_error<T>(&self, key: &str, what: &str) -> Result<T> {
        fail!(FileFormat, "{}: {key} must be a list of {what}", self.path.display())
    }

    /// The byte range of a value of the metadata in the file, including its type.
    ///
    /// # Errors
    /// As for `entries`.
    pub fn find_range(&self, key: &str) -> Result<Option<Range<usize>>> {
        self.read_value(key, |mut cursor| {
            let start = cursor.offset();
            metadata::check(&mut cursor)?;
            Ok(start..cursor.offset())
        })
    }

    fn read_value<T>(
        &self,
        key: &str,
        read: impl FnOnce(Cursor<'_>) -> Result<T, Fault>,
    ) -> Result<Option<T>> {
        self.with_bytes(|file| self.header.find_value(file, key)?.map(read).transpose())
    }

    /// Calls `read` with the file's bytes. An error means that the file was modified since it was checked.
    fn with_bytes<T>(&self, read: impl FnOnce(&[u8]) -> Result<T, Fault>) -> Result<T> {
        self.file.read(read)?.map_err(|fault| fault.into_error(&self.path))
    }

    /// Calls `use_value` with the stored bytes of an entry of this file.
    ///
    /// # Errors
    /// `ERR_FILE_NOT_FOUND` once the file was replaced and unmapped.
    pub fn read<T>(&self, entry: &Entry, use_value: impl FnOnce(&[u8]) -> T) -> Result<T> {
        self.file.read(|file| use_value(&file[entry.offset as usize..][..entry.bytes as usize]))
    }

    /// A tensor as a value of `cx`: in place over the map if it is stored in the requested type and the device can do
    /// that; otherwise created on the host. Blocks are unpacked to f32, or to `dtype`, and kept if `dtype` is their
    /// own. The columns of a row keep their order, so rows of blocks stay rows of blocks in any order of rows.
    ///
    /// # Errors
    /// `ERR_DTYPE` for a `dtype` that is neither a float nor the tensor's own; `ERR_SHAPE_MISMATCH` if the rows do not
    /// match the heads; `ERR_FILE_FORMAT` if the file has no such tensor; `ERR_FILE_NOT_FOUND` as `read`;
    /// `ERR_OUT_OF_MEMORY`.
    pub fn value(
        &self,
        cx: &Rc<Context>,
        name: &str,
        dtype: Option<DType>,
        order: RowOrder,
    ) -> Result<Value> {
        let entry = self.entry(name)?;
        let (stored, unpacked) = match entry.kind {
            TensorType::Plain(dtype) => (dtype, dtype),
            TensorType::Blocks(kind) => (DType::Block(kind), DType::F32),
        };
        let to = dtype.unwrap_or(unpacked);
        if !to.is_float() && to != stored {
            fail!(Dtype, "{}: tensor {} is not converted to {to}", self.path.display(), quote(name));
        }
        if stored == to && order == RowOrder::Stored {
            return cx.map(entry.shape.clone(), to, &self.file, entry.offset);
        }
        let sources = self.order_rows(&entry, order)?;
        // Allocated before the host's copy, so that a lack of memory is reported before work is done.
        let value = cx.empty(entry.shape.clone(), to)?;
        // A meta device needs no bytes, and reading a large file takes time.
        if !cx.is_meta() {
            // A copy from the map would leave the map's pages in memory, too.
            let bytes = self.file.copy(entry.offset, entry.bytes as usize)?;
            cx.write(&value, convert_rows(bytes, entry.kind, to, &sources));
        }
        Ok(value)
    }

    /// The source of each row; `None` if all rows are in their stored order.
    fn order_rows(&self, entry: &Entry, order: RowOrder) -> Result<Option<Vec<usize>>> {
        let RowOrder::Halves { heads } = order else { return Ok(None) };
        let rows = entry.shape.first().copied().unwrap_or(1);
        if heads == 0 || rows % (2 * heads) != 0 {
            fail!(
                ShapeMismatch,
                "{}: tensor {} is {}, whose rows are not those of {heads} heads of even size",
                self.path.display(),
                quote(&entry.name),
                entry.shape
            );
        }
        if entry.shape.rank() == 1 && matches!(entry.kind, TensorType::Blocks(_)) {
            fail!(FileFormat, "{}: tensor {} is one row of blocks", self.path.display(), quote(&entry.name));
        }
        let half = rows / heads / 2;
        let source = |row: usize| {
            let (head, in_head) = (row / (2 * half), row % (2 * half));
            2 * (head * half + in_head % half) + in_head / half
        };
        Ok(Some((0..rows).map(source).collect()))
    }
}

/// Elements that are unpacked together before they are rounded.
const UNPACK_SIZE: usize = 4096;

/// Converts rows to `to`, each from its row in `sources`.
fn convert_rows(mut bytes: Vec<u8>, kind: TensorType, to: DType, sources: &Option<Vec<usize>>) -> Vec<u8> {
    if let Some(sources) = sources {
        let row = bytes.len() / sources.len().max(1);
        let mut ordered = Vec::with_capacity(bytes.len());
        sources.iter().for_each(|at| ordered.extend_from_slice(&bytes[at * row..][..row]));
        bytes = ordered;
    }
    let kind = match kind {
        TensorType::Plain(from) if from == to => return bytes,
        TensorType::Plain(from) => return convert(&bytes, from, to),
        TensorType::Blocks(kind) if to == DType::Block(kind) => return bytes,
        TensorType::Blocks(kind) => kind,
    };
    let mut converted = vec![0; bytes.len() / kind.bytes() * kind.elements() * to.bytes()];
    let mut wide = [0f32; UNPACK_SIZE];
    let blocks = bytes.chunks(UNPACK_SIZE / kind.elements() * kind.bytes());
    for (blocks, out) in blocks.zip(converted.chunks_mut(UNPACK_SIZE * to.bytes())) {
        let wide = &mut wide[..out.len() / to.bytes()];
        unpack(kind, blocks, wide);
        match to {
            DType::F32 => out.copy_from_slice(bytemuck::cast_slice(wide)),
            _ => out.copy_from_slice(&convert(bytemuck::cast_slice(wide), DType::F32, to)),
        }
    }
    converted
}
