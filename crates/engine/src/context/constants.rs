//! Scalars that are made once for each value: `x + 1` uploads nothing the second time.

use std::collections::HashMap;
use std::rc::Rc;

use crate::kernel::BufferId;

/// Constants of a page.
const PAGE: usize = 1024;
pub const PAGE_BYTES: u64 = PAGE as u64 * 4;

/// A buffer of constants. It is destroyed by whoever lets go of it last.
pub struct Page(pub BufferId);

/// Those of a context that are on its newest page.
#[derive(Default)]
pub struct Constants {
    page: Option<Rc<Page>>,
    /// By their words, whatever they are read as.
    slots: HashMap<u32, usize>,
}

/// Where a constant lies.
pub struct Place {
    pub page: Rc<Page>,
    pub slot: usize,
    /// Whether it is to be written there.
    pub new: bool,
    /// Whether its page is to be made.
    pub first: bool,
    /// A full page, whose last holder may be this.
    pub full: Option<Rc<Page>>,
}

impl Constants {
    pub fn place(&mut self, word: u32) -> Place {
        let slot = self.slots.get(&word).copied();
        if let (Some(slot), Some(page)) = (slot, &self.page) {
            return Place { page: page.clone(), slot, new: false, first: false, full: None };
        }
        let full = if self.slots.len() == PAGE { self.page.take() } else { None };
        let first = self.page.is_none();
        if first {
            self.slots.clear();
        }
        let page = self.page.get_or_insert_with(|| Rc::new(Page(BufferId::next()))).clone();
        let slot = self.slots.len();
        self.slots.insert(word, slot);
        Place { page, slot, new: true, first, full }
    }

    pub fn take(&mut self) -> Option<Rc<Page>> {
        self.page.take()
    }
}
