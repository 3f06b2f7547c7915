//! Memory-mapped files, identified by the file instead of its name, so that they can be unmapped when the file is
//! replaced.
//!
//! Windows neither replaces nor removes a mapped file. Before that, each device copies the parts that its buffers use,
//! in its queue's order, and the file is unmapped. On other systems a map outlives the name.

mod lost_pages;
#[cfg(test)]
mod tests;

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, Weak};
use std::time::{Duration, Instant, SystemTime};

use memmap2::{MmapMut, MmapOptions, MmapRaw};

use crate::error::{Code, Error, Result};
use crate::fail;
use lost_pages::Watch;

/// How long a device that is shutting down may keep a map that must be unmapped.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// A user of mapped files: a device whose buffers are in some of them.
pub trait Borrower: Send + Sync {
    /// Copies its buffers out of the file, in the order of its queue, so that the file can be unmapped. A device that
    /// has ended has none.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY` if the copies do not fit; then nothing changes.
    fn copy_out(&self, file: &Arc<MappedFile>) -> Result<()>;
}

/// All mapped files of the process.
static MAPPED: Mutex<Vec<Weak<MappedFile>>> = Mutex::new(Vec::new());

/// The number of maps that were released.
static RELEASES: AtomicU64 = AtomicU64::new(0);

/// The identity of a file, independent of its name, as long as it exists.
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

/// What a write into a file changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    /// `None` where the file system has no times.
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp { bytes: metadata.len(), modified: metadata.modified().ok() }
    }
}

/// The bytes of a file: mapped, or read into memory that belongs to no file.
#[derive(Debug)]
struct Map {
    // Dropped before the bytes that it watches.
    watch: Watch,
    bytes: MmapRaw,
}

impl Map {
    fn new(bytes: MmapRaw) -> Map {
        Map { watch: Watch::new(bytes.as_ptr(), bytes.len()), bytes }
    }
}

/// A privately mapped file: writes to its bytes, as when other values are loaded over a weight, stay in this process
/// and never reach the file. Writers should replace files and not write into them: where one does, `check_unchanged`
/// finds it.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    identity: Identity,
    /// The file as it was mapped; `None` if it was read into memory.
    stamp: Option<Stamp>,
    /// `None` once it was unmapped.
    map: RwLock<Option<Arc<Map>>>,
    released: AtomicBool,
    borrowers: Mutex<Vec<Weak<dyn Borrower>>>,
}

/// The bytes of a mapped file, which stay mapped as long as this exists.
#[derive(Clone)]
pub struct Lease {
    file: Arc<MappedFile>,
    map: Arc<Map>,
}

impl Lease {
    pub fn is_in(&self, file: &Arc<MappedFile>) -> bool {
        Arc::ptr_eq(&self.file, file)
    }

    /// The address of byte `offset`; writes follow the rules of `MappedFile`.
    ///
    /// # Panics
    /// If it is past the end.
    pub fn pointer_at(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.map.bytes.len(), "a place past the file's end");
        // SAFETY: it is within the map, or at its end.
        unsafe { self.map.bytes.as_mut_ptr().add(offset) }
    }

    pub fn file(&self) -> &Arc<MappedFile> {
        &self.file
    }
}

/// All bytes of a map.
fn map_bytes(map: &Map) -> &[u8] {
    // SAFETY: the map has this length, and a writer into a weight of it prevents simultaneous reads of that weight.
    unsafe { std::slice::from_raw_parts(map.bytes.as_ptr(), map.bytes.len()) }
}

impl Deref for Lease {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        map_bytes(&self.map)
    }
}

impl MappedFile {
    /// Maps an open, readable file whose name is `path`.
    pub fn new(path: &Path, file: &File) -> std::io::Result<Arc<MappedFile>> {
        let stamp = Stamp::of(&file.metadata()?);
        // Pages are allocated when they are written: weights are mostly read. SAFETY: the map is private, and this
        // process does not write the file; if another process does, `check_unchanged` finds it.
        let map = unsafe { MmapOptions::new().no_reserve_swap().map_copy(file) }?;
        let mapped = MappedFile::with_bytes(path, file, Some(stamp), map.into())?;
        let mut all = lock_ignoring_poison(&MAPPED);
        all.retain(|file| file.strong_count() > 0);
        all.push(Arc::downgrade(&mapped));
        Ok(mapped)
    }

    /// Reads an open file, whose name is `path`, into memory: later changes of the file have no effect.
    ///
    /// # Errors
    /// The system's; `Interrupted` if the file was written meanwhile.
    pub fn read_whole(path: &Path, file: &File) -> std::io::Result<Arc<MappedFile>> {
        let stamp = Stamp::of(&file.metadata()?);
        let size = usize::try_from(stamp.bytes).map_err(|_| ErrorKind::OutOfMemory)?;
        let mut bytes = MmapMut::map_anon(size)?;
        let mut reader = file;
        let whole = reader.read_exact(&mut bytes);
        if whole.is_err() || Stamp::of(&file.metadata()?) != stamp {
            return Err(std::io::Error::new(ErrorKind::Interrupted, "it is being written; try again"));
        }
        MappedFile::with_bytes(path, file, None, bytes.into())
    }

    fn with_bytes(
        path: &Path,
        file: &File,
        stamp: Option<Stamp>,
        bytes: MmapRaw,
    ) -> std::io::Result<Arc<MappedFile>> {
        Ok(Arc::new(MappedFile {
            path: path.into(),
            identity: Identity::of(file)?,
            stamp,
            map: RwLock::new(Some(Arc::new(Map::new(bytes)))),
            released: AtomicBool::new(false),
            borrowers: Mutex::default(),
        }))
    }

    /// Whether its bytes were read into memory.
    pub fn is_in_memory(&self) -> bool {
        self.stamp.is_none()
    }

    /// Checks that the file was not written since it was mapped. A file that was replaced or removed is unchanged: its
    /// bytes stay.
    ///
    /// # Errors
    /// `ERR_FILE_NOT_FOUND` if its size or its time of change differ, or a page was lost.
    pub fn check_unchanged(&self) -> Result<()> {
        self.check_pages()?;
        let (Some(before), false) = (self.stamp, self.is_released()) else { return Ok(()) };
        // Without a file of this name, the mapped one was removed or renamed.
        let Ok(metadata) = std::fs::metadata(&self.path) else { return Ok(()) };
        let now = Stamp::of(&metadata);
        if now == before || find_identity(&self.path) != Some(self.identity) {
            return Ok(());
        }
        let what = match now.bytes == before.bytes {
            true => format!("{} bytes as before, at another time", now.bytes),
            false => format!("{} bytes, before {}", now.bytes, before.bytes),
        };
        Err(self.changed_error(&what))
    }

    /// # Errors
    /// `ERR_FILE_NOT_FOUND` if a page was lost.
    fn check_pages(&self) -> Result<()> {
        // A writer unmaps the file, and waits for the device's thread, which may be here.
        let Ok(map) = self.map.try_read() else { return Ok(()) };
        map.as_ref().map_or(Ok(()), |map| self.check_map(map))
    }

    fn check_map(&self, map: &Map) -> Result<()> {
        if map.watch.has_lost_pages() {
            return Err(self.changed_error("it was made shorter"));
        }
        Ok(())
    }

    fn changed_error(&self, what: &str) -> Error {
        let shown = self.path.display();
        let what = format!(
            "{shown}: the file was changed while it was in use ({what}); load the model again, and replace \
             files by renaming instead of writing into them"
        );
        Error::new(Code::FileNotFound, what).confine()
    }

    /// Whether it was unmapped, and its values were copied.
    pub fn is_released(&self) -> bool {
        self.released.load(Ordering::Acquire)
    }

    /// Calls `use_bytes` with its bytes, which stay mapped meanwhile.
    ///
    /// # Errors
    /// `ERR_FILE_NOT_FOUND` once it was unmapped, since another file, or none, has its name now; and if a page was lost.
    pub fn read<T>(&self, use_bytes: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let map = self.map.read().unwrap_or_else(|e| e.into_inner());
        let Some(map) = &*map else { return Err(self.released_error()) };
        let used = use_bytes(map_bytes(map));
        self.check_map(map)?;
        Ok(used)
    }

    /// Copies a range of its bytes by reading the file: a copy from the map would also leave the map's pages in memory.
    /// If the file was replaced meanwhile, the bytes are copied from the map.
    ///
    /// # Errors
    /// As for `read`.
    pub fn copy(&self, offset: u64, bytes: usize) -> Result<Vec<u8>> {
        self.read(|map| {
            if self.is_in_memory() {
                return map[offset as usize..][..bytes].to_vec();
            }
            self.read_from_file(offset, bytes).unwrap_or_else(|_| map[offset as usize..][..bytes].to_vec())
        })
    }

    fn read_from_file(&self, offset: u64, bytes: usize) -> std::io::Result<Vec<u8>> {
        let mut file = File::open(&self.path)?;
        if Identity::of(&file)? != self.identity {
            return Err(ErrorKind::NotFound.into());
        }
        file.seek(SeekFrom::Start(offset))?;
        let mut copy = vec![0; bytes];
        file.read_exact(&mut copy)?;
        Ok(copy)
    }

    /// Lets `send` send its bytes to `borrower`, which copies the parts that it needs before the file is unmapped.
    /// Without a borrower, nothing of the sent bytes is kept.
    ///
    /// # Errors
    /// As for `read`.
    pub fn lend(
        self: &Arc<Self>,
        borrower: Option<Arc<dyn Borrower>>,
        send: impl FnOnce(Lease),
    ) -> Result<()> {
        let map = self.map.read().unwrap_or_else(|e| e.into_inner());
        let Some(map) = &*map else { return Err(self.released_error()) };
        if let Some(borrower) = borrower {
            let mut borrowers = lock_ignoring_poison(&self.borrowers);
            borrowers.retain(|borrower| borrower.strong_count() > 0);
            let borrower = Arc::downgrade(&borrower);
            if !borrowers.iter().any(|one| std::ptr::addr_eq(one.as_ptr(), borrower.as_ptr())) {
                borrowers.push(borrower);
            }
        }
        send(Lease { file: self.clone(), map: map.clone() });
        Ok(())
    }

    fn released_error(&self) -> Error {
        let shown = self.path.display();
        let what =
            format!("{shown}: cannot be read: it was replaced or removed after it was opened; open it again");
        Error::new(Code::FileNotFound, what)
    }

    /// Lets the devices copy their buffers out of it, and unmaps it. Returns whether it was still mapped.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY` if the copies do not fit, `ERR_WRITE` if it stays in use; then nothing changes.
    fn release(self: &Arc<Self>) -> Result<bool> {
        // Locked to the end, so that readers wait for the outcome.
        let mut map = self.map.write().unwrap_or_else(|e| e.into_inner());
        if map.is_none() {
            return Ok(false);
        }
        let borrowers: Vec<Arc<dyn Borrower>> =
            lock_ignoring_poison(&self.borrowers).iter().filter_map(Weak::upgrade).collect();
        for borrower in borrowers {
            borrower.copy_out(self).map_err(|error| {
                let what =
                    format!("{}: what lies in it cannot be copied: {}", self.path.display(), error.message);
                Error::new(error.code, what)
            })?;
        }
        let start = Instant::now();
        while map.as_ref().is_some_and(|map| Arc::strong_count(map) > 1) {
            if start.elapsed() > MAX_WAIT {
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

/// The number of released maps. If it changes, code that counts mapped bytes must check again.
pub fn count_releases() -> u64 {
    RELEASES.load(Ordering::Acquire)
}

/// Unmaps the file at `path`, or all files below the folder at `path`: tensors in them keep their values, in their
/// device's memory. Returns the number of maps.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY` if the copies do not fit, `ERR_WRITE` if a map stays in use. Files that were not unmapped are
/// unchanged.
pub fn release(path: &Path) -> Result<usize> {
    let mapped: Vec<Arc<MappedFile>> =
        lock_ignoring_poison(&MAPPED).iter().filter_map(Weak::upgrade).collect();
    if mapped.is_empty() {
        return Ok(0);
    }
    let mut found = Vec::new();
    // A link's target is the mapped file.
    if path.is_dir() {
        list_files_below(path, &mut found)
    } else {
        found.extend(find_identity(path))
    }
    let mut count = 0;
    for file in mapped.iter().filter(|file| found.contains(&file.identity)) {
        count += usize::from(file.release()?);
    }
    Ok(count)
}

/// The files below a folder, without following links. Unreadable files are not mapped.
fn list_files_below(folder: &Path, found: &mut Vec<Identity>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => list_files_below(&entry.path(), found),
            Ok(kind) if kind.is_file() => found.extend(find_identity(&entry.path())),
            _ => {}
        }
    }
}

fn find_identity(path: &Path) -> Option<Identity> {
    // Opening a pipe would block until there is a writer.
    let regular = std::fs::metadata(path).is_ok_and(|kind| kind.is_file());
    regular.then(|| Identity::of(&File::open(path).ok()?).ok())?
}

fn lock_ignoring_poison<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
