//! Counts the bytes of values in mapped files, until a file is unmapped and its values are copied.

use std::sync::Arc;

use crate::mapped_file::{MappedFile, count_releases};

#[derive(Default)]
pub struct FileUses {
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

impl FileUses {
    pub fn add(&mut self, file: &Arc<MappedFile>, bytes: u64) {
        match self.files.iter_mut().find(|file_use| Arc::ptr_eq(&file_use.file, file)) {
            Some(file_use) => file_use.bytes += bytes,
            None => self.files.push(FileUse { file: file.clone(), bytes, copied: false }),
        }
    }

    /// Returns whether they were copied.
    pub fn remove(&mut self, file: &Arc<MappedFile>, bytes: u64) -> bool {
        let at = self.files.iter().position(|file_use| Arc::ptr_eq(&file_use.file, file));
        let at = at.expect("what is removed was added");
        let file_use = &mut self.files[at];
        file_use.bytes -= bytes;
        let copied = file_use.copied;
        if file_use.bytes == 0 {
            self.files.swap_remove(at);
        }
        copied
    }

    /// Bytes that were copied since the last call.
    pub fn take_copied(&mut self) -> u64 {
        let releases = count_releases();
        if releases == self.releases {
            return 0;
        }
        self.releases = releases;
        let mut bytes = 0;
        for file_use in
            self.files.iter_mut().filter(|file_use| !file_use.copied && file_use.file.is_released())
        {
            file_use.copied = true;
            bytes += file_use.bytes;
        }
        bytes
    }

    /// Bytes that are still in files.
    pub fn mapped_bytes(&self) -> u64 {
        self.files.iter().filter(|file_use| !file_use.copied).map(|file_use| file_use.bytes).sum()
    }
}
