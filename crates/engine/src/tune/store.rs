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
const LIMIT: u64 = 1 << 20;

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
    /// The store in the folder set by `keep_in`; `None` without a folder.
    pub fn of(owner: Owner) -> Option<Store> {
        Some(Store::within(&folder()?, owner))
    }

    pub fn within(folder: &Path, owner: Owner) -> Store {
        let name = [&owner.adapter, &owner.driver, &owner.package].map(|part| plain(part)).join("-");
        Store { path: folder.join(format!("{name}.json")), owner }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The stored results; empty for a file that is damaged, too large, of another format or of another owner.
    pub fn read(&self) -> Stored {
        self.load_kept().unwrap_or_default()
    }

    fn load_kept(&self) -> Option<Stored> {
        // Opening a pipe would block until there is a writer.
        let about = fs::metadata(&self.path).ok()?;
        if !about.is_file() || about.len() > LIMIT {
            return None;
        }
        let mut text = String::new();
        fs::File::open(&self.path).ok()?.take(LIMIT).read_to_string(&mut text).ok()?;
        let file: File = serde_json::from_str(&text).ok()?;
        let kept = Stored { variants: file.variants, wrong: file.wrong };
        (file.format == FORMAT && file.owner == self.owner).then_some(kept)
    }

    /// Adds `new` to the stored results. A failure is ignored.
    pub fn add(&self, new: &Stored) {
        if new.is_empty() {
            return;
        }
        let mut kept = self.read();
        kept.variants.extend(new.variants.clone());
        kept.wrong.extend(new.wrong.iter().cloned());
        let text = self.text(&kept).or_else(|| self.text(new));
        let (Some(text), Some(folder)) = (text, self.path.parent()) else { return };
        static WRITTEN: AtomicU64 = AtomicU64::new(0);
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let aside = folder.join(format!(".{}-{number}.part", std::process::id()));
        let kept = fs::create_dir_all(folder)
            .and_then(|()| fs::write(&aside, text))
            .and_then(|()| fs::rename(&aside, &self.path));
        if kept.is_err() {
            fs::remove_file(&aside).ok();
        }
    }

    /// The text of the file, if it could be read again.
    fn text(&self, kept: &Stored) -> Option<String> {
        let Stored { variants, wrong } = kept.clone();
        let file = File { format: FORMAT, owner: self.owner.clone(), variants, wrong };
        serde_json::to_string_pretty(&file).ok().filter(|text| text.len() as u64 <= LIMIT)
    }
}

/// A part of a file's name. Two owners may get the same name; the file's content distinguishes them.
fn plain(text: &str) -> String {
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
