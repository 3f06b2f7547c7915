//! Counts the bytes of values in mapped files, until a file is unmapped and its values are copied.

use std::sync::Arc;

use crate::mapped_file::{MappedFile, releases};

#[derive(Default)]
pub struct InFiles {
    files: Vec<FileUse>,
    /// The number of releases at the last check.
    releases: u64,
}

/// A context's values in one file.
struct FileUse {
    file: Arc<MappedFile>,
    bytes: u64,
    copied: bool,
}

impl InFiles {
    pub fn add(&mut self, file: &Arc<MappedFile>, bytes: u64) {
        match self.files.iter_mut().find(|part| Arc::ptr_eq(&part.file, file)) {
            Some(part) => part.bytes += bytes,
            None => self.files.push(FileUse { file: file.clone(), bytes, copied: false }),
        }
    }

    /// Returns whether they were copied.
    pub fn remove(&mut self, file: &Arc<MappedFile>, bytes: u64) -> bool {
        let at = self.files.iter().position(|part| Arc::ptr_eq(&part.file, file));
        let at = at.expect("what is removed was added");
        let part = &mut self.files[at];
        part.bytes -= bytes;
        let copied = part.copied;
        if part.bytes == 0 {
            self.files.swap_remove(at);
        }
        copied
    }

    /// Bytes that were copied since the last call.
    pub fn newly_copied(&mut self) -> u64 {
        let releases = releases();
        if releases == self.releases {
            return 0;
        }
        self.releases = releases;
        let mut bytes = 0;
        for part in self.files.iter_mut().filter(|part| !part.copied && part.file.is_released()) {
            part.copied = true;
            bytes += part.bytes;
        }
        bytes
    }

    /// Bytes that are still in files.
    pub fn mapped_bytes(&self) -> u64 {
        self.files.iter().filter(|part| !part.copied).map(|part| part.bytes).sum()
    }
}
