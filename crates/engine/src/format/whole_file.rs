//! Files that are there whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result};
use crate::fail;

/// A file being written beside its target, `NAME.tmp-<process>-<n>`, and renamed over it by
/// `finish`. Dropped before that, it is removed and the target is as it was.
pub struct WholeFile {
    target: PathBuf,
    beside: PathBuf,
    file: Option<BufWriter<File>>,
}

impl WholeFile {
    /// # Errors
    /// `ERR_WRITE` when the folder is not there or not to be written.
    pub fn create(target: &Path) -> Result<Self> {
        let Some(name) = target.file_name() else {
            fail!(Write, "{}: cannot be written: this names no file", target.display());
        };
        for n in 0.. {
            let mut beside = name.to_os_string();
            beside.push(format!(".tmp-{}-{n}", std::process::id()));
            let beside = target.with_file_name(beside);
            match OpenOptions::new().write(true).create_new(true).open(&beside) {
                Ok(file) => {
                    let file = Some(BufWriter::with_capacity(1 << 20, file));
                    return Ok(WholeFile { target: target.into(), beside, file });
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(unwritable(target, &e)),
            }
        }
        unreachable!("names run out")
    }

    /// # Errors
    /// `ERR_WRITE`, such as when the disk is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let file = self.file.as_mut().expect("open until it is finished");
        file.write_all(bytes).map_err(|e| unwritable(&self.target, &e))
    }

    /// Waits until the bytes are on the disk, then puts the file in its place.
    ///
    /// # Errors
    /// `ERR_WRITE`; the target is as it was.
    pub fn finish(mut self) -> Result<()> {
        let file = self.file.take().expect("open until it is finished");
        let placed = file
            .into_inner()
            .map_err(|e| e.into_error())
            // The file is closed before it is renamed: Windows asks for that.
            .and_then(|file| file.sync_all())
            .and_then(|()| std::fs::rename(&self.beside, &self.target));
        if let Err(e) = placed {
            let _ = std::fs::remove_file(&self.beside);
            return Err(unwritable(&self.target, &e));
        }
        // The new name is on the disk once the folder is; where folders cannot be synced the
        // file is whole all the same.
        #[cfg(unix)]
        if let Some(folder) = self.target.parent() {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        Ok(())
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // Without the buffer's last write, which may be what failed.
            drop(file.into_parts());
            let _ = std::fs::remove_file(&self.beside);
        }
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    let remedy = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "; free some space, or choose another folder"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => "; choose another folder",
        _ => "",
    };
    Error::new(Code::Write, format!("{}: cannot be written: {error}{remedy}", path.display()))
}
