//! Writing: byte for byte as Python's `safetensors`, one tensor at a time; the old file is replaced only at the end.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::Dtype;
use super::header::{MAX_HEADER, METADATA};
use crate::error::Result;
use crate::fail;
use crate::format::quote;
use crate::staged_file::StagedFile;

/// The name, dtype and shape of a tensor to be written.
#[derive(Clone, Copy, Debug)]
pub struct TensorSpec<'a> {
    pub name: &'a str,
    pub dtype: Dtype,
    pub shape: &'a [usize],
}

/// A tensor with its bytes, row-major and little-endian.
#[derive(Clone, Copy, Debug)]
pub struct TensorData<'a> {
    pub name: &'a str,
    pub dtype: Dtype,
    pub shape: &'a [usize],
    pub bytes: &'a [u8],
}

/// Writes all of `tensors`. `metadata` is free text; files for PyTorch have `format: "pt"`.
///
/// # Errors
/// `ERR_WRITE`, the old file unchanged; `ERR_SHAPE_MISMATCH` if bytes and shape disagree; `ERR_OPTION` for conflicting
/// names.
pub fn write(path: &Path, tensors: &[TensorData], metadata: Option<&BTreeMap<String, String>>) -> Result<()> {
    let specs: Vec<TensorSpec> =
        tensors.iter().map(|t| TensorSpec { name: t.name, dtype: t.dtype, shape: t.shape }).collect();
    let mut writer = Writer::create(path, &specs, metadata)?;
    for i in writer.order().to_vec() {
        writer.append(tensors[i].bytes)?;
    }
    writer.finish()
}

/// A file being written one tensor at a time, so that only one needs to be in memory.
pub struct Writer {
    path: PathBuf,
    file: StagedFile,
    order: Vec<usize>,
    /// Names and sizes in the order of the file.
    expected: Vec<(String, u64)>,
    next: usize,
}

impl Writer {
    /// Writes the header. Tensors are ordered by the alignment of their dtype, widest first, then by name.
    ///
    /// # Errors
    /// As for `write`.
    pub fn create(
        path: &Path,
        specs: &[TensorSpec],
        metadata: Option<&BTreeMap<String, String>>,
    ) -> Result<Writer> {
        let shown = path.display();
        let mut names = HashSet::new();
        for spec in specs {
            if spec.name == METADATA || !names.insert(spec.name) {
                fail!(Option, "{shown}: a tensor cannot be named {} here", quote(spec.name));
            }
        }
        let mut order: Vec<usize> = (0..specs.len()).collect();
        order.sort_by(|a, b| {
            let (a, b) = (&specs[*a], &specs[*b]);
            b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(b.name))
        });
        let mut expected = Vec::with_capacity(specs.len());
        for i in &order {
            let spec = &specs[*i];
            let Some(bytes) = count_bytes(spec) else {
                fail!(
                    ShapeMismatch,
                    "{shown}: tensor {}: {} {:?} is no whole number of bytes",
                    quote(spec.name),
                    spec.dtype,
                    spec.shape
                );
            };
            expected.push((spec.name.to_string(), bytes));
        }
        let header = format_header(specs, &order, &expected, metadata);
        if header.len() as u64 > MAX_HEADER {
            fail!(Write, "{shown}: the header would be longer than {MAX_HEADER} bytes");
        }
        let mut file = StagedFile::create(path)?;
        file.write(&(header.len() as u64).to_le_bytes())?;
        file.write(header.as_bytes())?;
        Ok(Writer { path: path.into(), file, order, expected, next: 0 })
    }

    /// The order in which `append` expects the tensors, as indices into the specs.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// Writes the next tensor.
    ///
    /// # Errors
    /// `ERR_WRITE`, `ERR_SHAPE_MISMATCH`. The file is discarded when the writer is dropped.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let shown = self.path.display();
        let Some((name, expected)) = self.expected.get(self.next) else {
            fail!(ShapeMismatch, "{shown}: more tensors than were named");
        };
        if bytes.len() as u64 != *expected {
            fail!(
                ShapeMismatch,
                "{shown}: tensor {} takes {expected} bytes, {} were given",
                quote(name),
                bytes.len()
            );
        }
        self.next += 1;
        self.file.write(bytes)
    }

    /// Renames the file to its target.
    ///
    /// # Errors
    /// `ERR_WRITE`; `ERR_SHAPE_MISMATCH` when tensors are missing.
    pub fn finish(self) -> Result<()> {
        if let Some((name, _)) = self.expected.get(self.next) {
            fail!(ShapeMismatch, "{}: tensor {} was not given", self.path.display(), quote(name));
        }
        self.file.finish()
    }
}

fn count_bytes(spec: &TensorSpec) -> Option<u64> {
    let elements = spec.shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d as u64))?;
    let bits = elements.checked_mul(spec.dtype.bitsize() as u64)?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// The JSON without whitespace, padded with spaces to 8 bytes.
fn format_header(
    specs: &[TensorSpec],
    order: &[usize],
    expected: &[(String, u64)],
    metadata: Option<&BTreeMap<String, String>>,
) -> String {
    let json = |text: &str| serde_json::to_string(text).expect("a string is JSON");
    let mut members = Vec::with_capacity(specs.len() + 1);
    if let Some(metadata) = metadata {
        let texts = metadata.iter().map(|(key, value)| format!("{}:{}", json(key), json(value)));
        members.push(format!("{}:{{{}}}", json(METADATA), texts.collect::<Vec<_>>().join(",")));
    }
    let mut begin = 0;
    for (i, (name, bytes)) in order.iter().zip(expected) {
        let spec = &specs[*i];
        let dims: Vec<String> = spec.shape.iter().map(usize::to_string).collect();
        let end = begin + bytes;
        let mut member = json(name);
        let _ = write!(
            member,
            ":{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{begin},{end}]}}",
            spec.dtype,
            dims.join(",")
        );
        members.push(member);
        begin = end;
    }
    let mut header = format!("{{{}}}", members.join(","));
    let spaces = header.len().next_multiple_of(8) - header.len();
    header.extend(std::iter::repeat_n(' ', spaces));
    header
}
