//! The file of results: one per adapter, driver and package version.
//!
//! It is optional: an unreadable file counts as missing, and a failed write is ignored. A file is staged and renamed
//! over the old one, whose entries it includes. If two processes write at the same moment, the later one's entries
//! stay, and the others are measured again later.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::setting::folder;

/// Incremented whenever the file's format or the meaning of its names changes.
const FORMAT: u32 = 2;
/// Most bytes of a file.
const MAX_BYTES: u64 = 1 << 20;

/// Names of variants by class.
pub type Choices = BTreeMap<String, String>;

/// The stored results of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The fastest variants.
    pub variants: Choices,
    /// Names of variants, with their family's, that gave wrong results for some class and are never used.
    pub wrong: BTreeSet<String>,
}

impl From<Choices> for Stored {
    fn from(variants: Choices) -> Stored {
        Stored { variants, wrong: BTreeSet::new() }
    }
}

impl Stored {
    fn is_empty(&self) -> bool {
        self.variants.is_empty() && self.wrong.is_empty()
    }
}

/// The owner of a file's results. Another driver or package may compile other code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The GPU and its backend.
    pub adapter: String,
    pub driver: String,
    /// The version of this package.
    pub package: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    owner: Owner,
    variants: Choices,
    wrong: BTreeSet<String>,
}

#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
    owner: Owner,
}

impl Store {
    /// The store in the folder set by `set_folder`; `None` without a folder.
    pub fn open(owner: Owner) -> Option<Store> {
        Some(Store::in_folder(&folder()?, owner))
    }

    pub fn in_folder(folder: &Path, owner: Owner) -> Store {
        let name = [&owner.adapter, &owner.driver, &owner.package].map(|part| sanitise(part)).join("-");
        Store { path: folder.join(format!("{name}.json")), owner }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The stored results; empty for a file that is damaged, too large, of another format or of another owner.
    pub fn read(&self) -> Stored {
        self.load().unwrap_or_default()
    }

    fn load(&self) -> Option<Stored> {
        // Opening a pipe would block until there is a writer.
        let about = fs::metadata(&self.path).ok()?;
        if !about.is_file() || about.len() > MAX_BYTES {
            return None;
        }
        let mut text = String::new();
        fs::File::open(&self.path).ok()?.take(MAX_BYTES).read_to_string(&mut text).ok()?;
        let file: File = serde_json::from_str(&text).ok()?;
        let stored = Stored { variants: file.variants, wrong: file.wrong };
        (file.format == FORMAT && file.owner == self.owner).then_some(stored)
    }

    /// Adds `new` to the stored results. A failure is ignored.
    pub fn add(&self, new: &Stored) {
        if new.is_empty() {
            return;
        }
        let mut stored = self.read();
        stored.variants.extend(new.variants.clone());
        stored.wrong.extend(new.wrong.iter().cloned());
        let text = self.to_text(&stored).or_else(|| self.to_text(new));
        let (Some(text), Some(folder)) = (text, self.path.parent()) else { return };
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let staging = folder.join(format!(".{}-{number}.part", std::process::id()));
        let result = fs::create_dir_all(folder)
            .and_then(|()| fs::write(&staging, text))
            .and_then(|()| fs::rename(&staging, &self.path));
        if result.is_err() {
            fs::remove_file(&staging).ok();
        }
    }

    /// The text of the file, if it could be read again.
    fn to_text(&self, stored: &Stored) -> Option<String> {
        let Stored { variants, wrong } = stored.clone();
        let file = File { format: FORMAT, owner: self.owner.clone(), variants, wrong };
        serde_json::to_string_pretty(&file).ok().filter(|text| text.len() as u64 <= MAX_BYTES)
    }
}

/// A part of a file's name. Two owners may get the same name; the file's content distinguishes them.
fn sanitise(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        match c {
            c if c.is_ascii_alphanumeric() || c == '.' => name.push(c.to_ascii_lowercase()),
            _ if name.ends_with('_') || name.is_empty() => {}
            _ => name.push('_'),
        }
    }
    name.truncate(60);
    name.trim_matches(['_', '.']).to_string()
}
