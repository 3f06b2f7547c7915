//! Files that lie mapped in memory, known by what they are and not by a name, so that they can be let go.
//!
//! Windows neither replaces nor removes a file that is mapped. Whoever has to do that has each device copy what its
//! buffers have of the file, in its queue's order, and the map goes. Elsewhere what was mapped outlives the name.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, Weak};
use std::time::{Duration, Instant};

use memmap2::{MmapOptions, MmapRaw};

use crate::error::{Code, Error, Result};
use crate::fail;

/// How long a device that ends may keep a map that is to be let go.
const PATIENCE: Duration = Duration::from_secs(2);

/// Has what lies in mapped files: a device that was sent some of them.
pub trait Borrower: Send + Sync {
    /// Copies what it has of the file, in the order of its queue, so that the map may go. One that has ended has nothing.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY` where the copies do not fit; all is as it was then.
    fn copy_out(&self, file: &Arc<MappedFile>) -> Result<()>;
}

/// Every file of the process that is mapped.
static MAPPED: Mutex<Vec<Weak<MappedFile>>> = Mutex::new(Vec::new());

/// How often a map was let go.
static RELEASES: AtomicU64 = AtomicU64::new(0);

/// Which file it is, by whatever name, for as long as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    volume: u64,
    index: u64,
}

impl Identity {
    #[cfg(not(windows))]
    pub fn of(file: &File) -> std::io::Result<Identity> {
        use std::os::unix::fs::MetadataExt;
        let metadata = file.metadata()?;
        Ok(Identity { volume: metadata.dev(), index: metadata.ino() })
    }

    #[cfg(windows)]
    pub fn of(file: &File) -> std::io::Result<Identity> {
        let information = winapi_util::file::information(file)?;
        Ok(Identity { volume: information.volume_serial_number(), index: information.file_index() })
    }
}

/// A file that is mapped privately: what is written to its bytes, as into a weight that is loaded over, is this
/// process's own and never reaches the file. It must not be cut short meanwhile: writers replace files and never write
/// into them.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    identity: Identity,
    /// Nothing once it was let go.
    map: RwLock<Option<Arc<MmapRaw>>>,
    released: AtomicBool,
    borrowers: Mutex<Vec<Weak<dyn Borrower>>>,
}

/// The bytes of a mapped file, which stay where they are for as long as it lives.
#[derive(Clone)]
pub struct Lease {
    file: Arc<MappedFile>,
    map: Arc<MmapRaw>,
}

impl Lease {
    pub fn is_of(&self, file: &Arc<MappedFile>) -> bool {
        Arc::ptr_eq(&self.file, file)
    }

    /// Where its byte `offset` lies, which may be written as `MappedFile` says.
    ///
    /// # Panics
    /// Where that is past the end.
    pub fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.map.len(), "a place past the file's end");
        // SAFETY: it lies within the map, or at its end.
        unsafe { self.map.as_mut_ptr().add(offset) }
    }
}

/// All bytes of a map.
fn bytes(map: &MmapRaw) -> &[u8] {
    // SAFETY: the map is as long, and who writes into a weight in it reads that weight nowhere else meanwhile.
    unsafe { std::slice::from_raw_parts(map.as_ptr(), map.len()) }
}

impl Deref for Lease {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        bytes(&self.map)
    }
}

impl MappedFile {
    /// Maps a file that is open for reading under the name of `path`.
    pub fn new(path: &Path, file: &File) -> std::io::Result<Arc<MappedFile>> {
        // Memory is asked for page by page, when one is written: weights are mostly read.
        // SAFETY: a private map, whose file is not written by this process; another that cuts it short while it is
        // read ends this one.
        let map = unsafe { MmapOptions::new().no_reserve_swap().map_copy(file) }?;
        let mapped = Arc::new(MappedFile {
            path: path.into(),
            identity: Identity::of(file)?,
            map: RwLock::new(Some(Arc::new(map.into()))),
            released: AtomicBool::new(false),
            borrowers: Mutex::default(),
        });
        let mut all = locked(&MAPPED);
        all.retain(|file| file.strong_count() > 0);
        all.push(Arc::downgrade(&mapped));
        Ok(mapped)
    }

    /// Whether its map was let go, and what lay in it was copied.
    pub fn is_released(&self) -> bool {
        self.released.load(Ordering::Acquire)
    }

    /// What `look` makes of its bytes, which stay meanwhile.
    ///
    /// # Errors
    /// `ERR_FILE_NOT_FOUND` once it was let go: another file is there now, or none.
    pub fn read<T>(&self, look: impl FnOnce(&[u8]) -> T) -> Result<T> {
        match &*self.map.read().unwrap_or_else(|e| e.into_inner()) {
            Some(map) => Ok(look(bytes(map))),
            None => Err(self.gone()),
        }
    }

    /// A copy of some of its bytes, by a read of the file: what is copied out of a map counts twice, as the copy and as
    /// pages of the map that nobody takes back. Of a file that was replaced meanwhile it is out of the map after all.
    ///
    /// # Errors
    /// As `read`.
    pub fn copy(&self, offset: u64, bytes: usize) -> Result<Vec<u8>> {
        self.read(|map| {
            self.read_apart(offset, bytes).unwrap_or_else(|_| map[offset as usize..][..bytes].to_vec())
        })
    }

    fn read_apart(&self, offset: u64, bytes: usize) -> std::io::Result<Vec<u8>> {
        let mut file = File::open(&self.path)?;
        if Identity::of(&file)? != self.identity {
            return Err(ErrorKind::NotFound.into());
        }
        file.seek(SeekFrom::Start(offset))?;
        let mut copy = vec![0; bytes];
        file.read_exact(&mut copy)?;
        Ok(copy)
    }

    /// Has `send` send its bytes to `borrower`, after which they may be let go: it copies what it needs of them once it
    /// comes to that. Without one nothing is kept of what is sent.
    ///
    /// # Errors
    /// As `read`.
    pub fn lend(
        self: &Arc<Self>,
        borrower: Option<Arc<dyn Borrower>>,
        send: impl FnOnce(Lease),
    ) -> Result<()> {
        let map = self.map.read().unwrap_or_else(|e| e.into_inner());
        let Some(map) = &*map else { return Err(self.gone()) };
        if let Some(borrower) = borrower {
            let mut borrowers = locked(&self.borrowers);
            borrowers.retain(|borrower| borrower.strong_count() > 0);
            let borrower = Arc::downgrade(&borrower);
            if !borrowers.iter().any(|one| std::ptr::addr_eq(one.as_ptr(), borrower.as_ptr())) {
                borrowers.push(borrower);
            }
        }
        send(Lease { file: self.clone(), map: map.clone() });
        Ok(())
    }

    fn gone(&self) -> Error {
        let shown = self.path.display();
        let what =
            format!("{shown}: cannot be read: it was replaced or removed after it was opened; open it again");
        Error::new(Code::FileNotFound, what)
    }

    /// Has the devices copy what lies in it, and unmaps it. Returns whether it was mapped still.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY` where the copies do not fit, `ERR_WRITE` where it stays in use; all is as it was then.
    fn release(self: &Arc<Self>) -> Result<bool> {
        // Held to the end: whoever wants to read meanwhile waits for what becomes of it.
        let mut map = self.map.write().unwrap_or_else(|e| e.into_inner());
        if map.is_none() {
            return Ok(false);
        }
        let borrowers: Vec<Arc<dyn Borrower>> =
            locked(&self.borrowers).iter().filter_map(Weak::upgrade).collect();
        for borrower in borrowers {
            borrower.copy_out(self).map_err(|error| {
                let what =
                    format!("{}: what lies in it cannot be copied: {}", self.path.display(), error.message);
                Error::new(error.code, what)
            })?;
        }
        let start = Instant::now();
        while map.as_ref().is_some_and(|map| Arc::strong_count(map) > 1) {
            if start.elapsed() > PATIENCE {
                fail!(Write, "{}: another part of this process uses it", self.path.display());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        *map = None;
        self.released.store(true, Ordering::Release);
        RELEASES.fetch_add(1, Ordering::Release);
        Ok(true)
    }
}

/// How often the process has let go of a map: who keeps account of what is mapped looks again when that changes.
pub fn releases() -> u64 {
    RELEASES.load(Ordering::Acquire)
}

/// Lets go of all that this process has mapped of the file at `path`, or of the files below the folder there: tensors
/// that lie in them keep their values, in memory of their device. Returns how many maps there were.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY` where the copies do not fit, `ERR_WRITE` where a map stays in use. What was not let go is as it
/// was.
pub fn release(path: &Path) -> Result<usize> {
    let mapped: Vec<Arc<MappedFile>> = locked(&MAPPED).iter().filter_map(Weak::upgrade).collect();
    if mapped.is_empty() {
        return Ok(0);
    }
    let mut found = Vec::new();
    // Of a link it is what the link leads to that is mapped.
    if path.is_dir() {
        below(path, &mut found)
    } else {
        found.extend(identity(path))
    }
    let mut count = 0;
    for file in mapped.iter().filter(|file| found.contains(&file.identity)) {
        count += usize::from(file.release()?);
    }
    Ok(count)
}

/// The files below a folder; links are not followed. What cannot be read is not mapped by this name.
fn below(folder: &Path, found: &mut Vec<Identity>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => below(&entry.path(), found),
            Ok(kind) if kind.is_file() => found.extend(identity(&entry.path())),
            _ => {}
        }
    }
}

fn identity(path: &Path) -> Option<Identity> {
    // Opening a pipe would wait for its other end.
    let regular = std::fs::metadata(path).is_ok_and(|kind| kind.is_file());
    regular.then(|| Identity::of(&File::open(path).ok()?).ok())?
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
