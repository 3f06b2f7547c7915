//! Weight files: readers that check everything before anything is used, and writers that are atomic.

mod convert;
pub mod gguf;
mod json;
pub mod safetensors;
pub mod weights;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use self::json::Fault;
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::mapped_file::MappedFile;

/// Maps a file.
///
/// # Errors
/// `ERR_FILE_NOT_FOUND` if it does not exist or cannot be opened, `ERR_FILE_FORMAT` if it is not a regular file.
fn map_file(path: &Path) -> Result<Arc<MappedFile>> {
    MappedFile::new(path, &open(path)?).map_err(|e| unreadable_error(path, &e))
}

/// Whether a file is mapped, as base weights are, or read into memory, so that later changes of it have no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Mapped,
    InMemory,
}

/// Opens a file and parses its header with `parse`.
///
/// # Errors
/// As for `map_file`; `ERR_FILE_FORMAT` with the byte offset and the expectation.
fn open_checked<H>(
    path: &Path,
    access: Access,
    parse: impl FnOnce(&[u8]) -> Result<H, Fault>,
) -> Result<(Arc<MappedFile>, H)> {
    let file = match access {
        Access::Mapped => map_file(path)?,
        Access::InMemory => {
            MappedFile::read_whole(path, &open(path)?).map_err(|e| unreadable_error(path, &e))?
        }
    };
    let header = file.read(parse)?.map_err(|fault| fault.into_error(path))?;
    Ok((file, header))
}

/// Reads a small file.
///
/// # Errors
/// As for `map_file`.
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes).map_err(|e| unreadable_error(path, &e))?;
    Ok(bytes)
}

fn open(path: &Path) -> Result<File> {
    let shown = path.display();
    // Checked before opening: opening a pipe would block until there is a writer.
    let kind = std::fs::metadata(path).map_err(|e| unreadable_error(path, &e))?;
    if kind.is_dir() {
        fail!(FileFormat, "{shown}: a file was expected, this is a folder");
    }
    if !kind.is_file() {
        fail!(FileFormat, "{shown}: a regular file was expected");
    }
    File::open(path).map_err(|e| unreadable_error(path, &e))
}

pub(crate) fn unreadable_error(path: &Path, error: &std::io::Error) -> Error {
    let shown = path.display();
    let message = match error.kind() {
        ErrorKind::NotFound => format!("{shown}: there is no such file"),
        _ => format!("{shown}: cannot be read: {error}"),
    };
    Error::new(Code::FileNotFound, message)
}

/// A name from a file, escaped for one line of an error.
pub(crate) fn quote(name: &str) -> String {
    const SHOWN: usize = 120;
    match name.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &name[..end]),
        None => format!("{name:?}"),
    }
}

/// A temporary folder for a test, removed when it is dropped.
#[cfg(test)]
pub(crate) mod test_folder {
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU32, Ordering};

    pub struct TestFolder(PathBuf);

    impl TestFolder {
        pub fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            loop {
                let name =
                    format!("lowrank-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
                let path = std::env::temp_dir().join(name);
                match std::fs::create_dir(&path) {
                    Ok(()) => return TestFolder(path),
                    // Left by an ended process with the same number.
                    Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                    Err(e) => panic!("{}: {e}", path.display()),
                }
            }
        }

        pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        }

        /// The names in the folder.
        pub fn names(&self) -> Vec<String> {
            let entries = std::fs::read_dir(&self.0).unwrap();
            let mut names: Vec<String> =
                entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl std::ops::Deref for TestFolder {
        type Target = Path;
        fn deref(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for TestFolder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
