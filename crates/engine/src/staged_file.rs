//! Files that are written atomically.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result};
use crate::fail;
use crate::mapped_file;

/// A staging file next to its target, `NAME.tmp-<process>-<n>`, which `finish` renames to the target. If it is dropped
/// before that, it is removed and the target is unchanged.
pub struct StagedFile {
    target: PathBuf,
    staging: PathBuf,
    file: Option<BufWriter<File>>,
}

impl StagedFile {
    /// Creates the staging file.
    ///
    /// # Errors
    /// `ERR_WRITE` if the folder does not exist or is not writable, or if the target is a device, a pipe or a socket.
    pub fn create(target: &Path) -> Result<Self> {
        let Some(name) = target.file_name() else {
            fail!(Write, "{}: cannot be written: this names no file", target.display());
        };
        let replaced = std::fs::metadata(target).ok();
        if replaced.as_ref().is_some_and(|it| !it.is_file() && !it.is_dir()) {
            fail!(
                Write,
                "{}: cannot be written: it is no regular file; choose another name",
                target.display()
            );
        }
        for n in 0.. {
            let mut staging = name.to_os_string();
            staging.push(format!(".tmp-{}-{n}", std::process::id()));
            let staging = target.with_file_name(staging);
            match OpenOptions::new().write(true).create_new(true).open(&staging) {
                Ok(file) => {
                    // Keeps the permissions of the replaced file.
                    #[cfg(unix)]
                    if let Some(replaced) = replaced.filter(|it| it.is_file()) {
                        let _ = file.set_permissions(replaced.permissions());
                    }
                    let file = Some(BufWriter::with_capacity(1 << 20, file));
                    return Ok(StagedFile { target: target.into(), staging, file });
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(write_error(target, &e)),
            }
        }
        unreachable!("names run out")
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// `ERR_WRITE`, such as when the disk is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let file = self.file.as_mut().expect("open until it is finished");
        file.write_all(bytes).map_err(|e| write_error(&self.target, &e))
    }

    /// Syncs the file to disk and renames it to the target. Tensors in the replaced file keep their values.
    ///
    /// # Errors
    /// `ERR_WRITE`, for example if another program uses the file; `ERR_OUT_OF_MEMORY` if the system cannot replace a
    /// mapped file and its tensors do not fit elsewhere. The target is then unchanged.
    pub fn finish(mut self) -> Result<()> {
        let file = self.file.take().expect("open until it is finished");
        let result = file
            .into_inner()
            .map_err(|e| e.into_error())
            // Windows requires that the file is closed before it is renamed.
            .and_then(|file| file.sync_all())
            .map_err(|e| write_error(&self.target, &e))
            .and_then(|()| replace(&self.target, || std::fs::rename(&self.staging, &self.target)));
        if let Err(error) = result {
            let _ = std::fs::remove_file(&self.staging);
            return Err(error);
        }
        // The rename is durable once the folder is synced; where folders cannot be synced, the file is complete all the
        // same.
        #[cfg(unix)]
        if let Some(folder) = self.target.parent() {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        Ok(())
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // Without flushing the buffer, since that may be what failed.
            drop(file.into_parts());
            let _ = std::fs::remove_file(&self.staging);
        }
    }
}

/// Calls `rename` to replace `target`. If the system refuses, as Windows does for a mapped file, this process unmaps
/// the file and tries again.
fn replace(target: &Path, rename: impl Fn() -> io::Result<()>) -> Result<()> {
    loop {
        let Err(refused) = rename() else { return Ok(()) };
        // A file cannot replace a folder.
        if !may_be_in_use(&refused) || target.is_dir() {
            return Err(write_error(target, &refused));
        }
        if mapped_file::release(target)? == 0 {
            let shown = target.display();
            let why = "permission is missing, or another program uses it; close that, or choose another name";
            fail!(Write, "{shown}: cannot be replaced: {why} ({refused})");
        }
    }
}

fn may_be_in_use(error: &io::Error) -> bool {
    // Errors for a file that another process has open, or has mapped.
    const SHARING_VIOLATION: i32 = 32;
    const USER_MAPPED_FILE: i32 = 1224;
    let windows = cfg!(windows) && matches!(error.raw_os_error(), Some(SHARING_VIOLATION | USER_MAPPED_FILE));
    windows || error.kind() == ErrorKind::PermissionDenied
}

fn write_error(path: &Path, error: &io::Error) -> Error {
    let remedy = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "; free some space, or choose another folder"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => "; choose another folder",
        _ => "",
    };
    Error::new(Code::Write, format!("{}: cannot be written: {error}{remedy}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::format::safetensors::{Dtype, Reader, TensorData, write};
    use crate::format::test_folder::TestFolder;
    use crate::ops::checks::{contexts, read};

    fn write_tensor(path: &Path, value: f32) {
        let bytes = value.to_le_bytes();
        write(path, &[TensorData { name: "w", dtype: Dtype::F32, shape: &[1], bytes: &bytes }], None)
            .unwrap();
    }

    #[test]
    fn a_file_can_be_replaced_while_its_tensors_are_in_use() {
        let folder = TestFolder::new();
        let path = folder.join("x.safetensors");
        write_tensor(&path, 0.0);
        for cx in contexts() {
            for step in 0..3 {
                write_tensor(&path, step as f32);
                let old = Reader::open(&path).unwrap();
                let value = old.value(&cx, "w", None).unwrap();
                write_tensor(&path, -1.0);
                assert_eq!(read(&value).data, [step as f64]);
                let new = Reader::open(&path).unwrap().value(&cx, "w", None).unwrap();
                assert_eq!(read(&new).data, [-1.0]);
            }
        }
        assert_eq!(folder.names(), ["x.safetensors"]);
    }

    /// Simulates a system that cannot replace a mapped file.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_refused_rename_releases_the_mapped_file() {
        let folder = TestFolder::new();
        let (path, new) = (folder.join("x"), folder.join("new"));
        write_tensor(&path, 1.0);
        write_tensor(&new, 2.0);
        let cx = &contexts()[0];
        let value = Reader::open(&path).unwrap().value(cx, "w", None).unwrap();
        let tries = Cell::new(0);
        let rename = || {
            tries.set(tries.get() + 1);
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            if maps.lines().any(|line| line.ends_with(path.to_str().unwrap())) {
                return Err(io::Error::from(ErrorKind::PermissionDenied));
            }
            std::fs::rename(&new, &path)
        };
        replace(&path, rename).unwrap();
        assert_eq!(tries.get(), 2);
        assert_eq!(read(&value).data, [1.0]);
        assert_eq!(read(&Reader::open(&path).unwrap().value(cx, "w", None).unwrap()).data, [2.0]);
    }

    #[cfg(unix)]
    #[test]
    fn special_files_are_refused_and_files_keep_their_mode() {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt};
        let folder = TestFolder::new();
        let socket = folder.join("socket");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let error = StagedFile::create(&socket).err().unwrap();
        assert_eq!(error.code, Code::Write);
        assert!(
            error.message.ends_with("socket: cannot be written: it is no regular file; choose another name")
        );
        assert!(std::fs::metadata(&socket).unwrap().file_type().is_socket());
        let own = folder.file("own", "old");
        std::fs::set_permissions(&own, PermissionsExt::from_mode(0o600)).unwrap();
        write_tensor(&own, 1.0);
        assert_eq!(std::fs::metadata(&own).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_in_use_by_another_program_is_reported() {
        let folder = TestFolder::new();
        let path = folder.file("x", "old");
        let tries = Cell::new(0);
        let refused = || {
            tries.set(tries.get() + 1);
            Err(io::Error::from(ErrorKind::PermissionDenied))
        };
        let error = replace(&path, refused).unwrap_err();
        assert_eq!((error.code, tries.get()), (Code::Write, 1));
        let why = "x: cannot be replaced: permission is missing, or another program uses it; close that, or choose another name (";
        assert!(error.message.contains(why), "{error}");
        let error = replace(&path, || Err(io::Error::from(ErrorKind::StorageFull))).unwrap_err();
        assert!(error.message.contains("x: cannot be written: "), "{error}");
    }
}
