//! Cached scalars: `x + 1` uploads its constant only once.

use std::collections::HashMap;
use std::rc::Rc;

use crate::kernel::BufferId;

/// Constants per page.
const SLOTS_PER_PAGE: usize = 1024;
pub const PAGE_BYTES: u64 = SLOTS_PER_PAGE as u64 * 4;

/// A buffer of constants. Dropping the last reference destroys it.
pub struct Page(pub BufferId);

/// The constants on a context's newest page.
#[derive(Default)]
pub struct Constants {
    page: Option<Rc<Page>>,
    /// Slots by the constant's 32 bits, whatever their type.
    slots: HashMap<u32, usize>,
}

/// The location of a constant.
pub struct ConstantSlot {
    pub page: Rc<Page>,
    pub slot: usize,
    /// Whether the constant must be written.
    pub is_new: bool,
    /// Whether its page must be allocated.
    pub first: bool,
    /// A full page that this may be the last to reference.
    pub full: Option<Rc<Page>>,
}

impl Constants {
    pub fn allocate_slot(&mut self, word: u32) -> ConstantSlot {
        let slot = self.slots.get(&word).copied();
        if let (Some(slot), Some(page)) = (slot, &self.page) {
            return ConstantSlot { page: page.clone(), slot, is_new: false, first: false, full: None };
        }
        let full = if self.slots.len() == SLOTS_PER_PAGE { self.page.take() } else { None };
        let first = self.page.is_none();
        if first {
            self.slots.clear();
        }
        let page = self.page.get_or_insert_with(|| Rc::new(Page(BufferId::next()))).clone();
        let slot = self.slots.len();
        self.slots.insert(word, slot);
        ConstantSlot { page, slot, is_new: true, first, full }
    }

    pub fn take_page(&mut self) -> Option<Rc<Page>> {
        self.page.take()
    }
}
