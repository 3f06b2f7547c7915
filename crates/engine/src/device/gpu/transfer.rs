//! Uploads, copies and zeroing, all in command order.
//!
//! wgpu copies multiples of 4 bytes. A half-precision range may start or end in the middle of such a word: the whole
//! words inside are copied, and a kernel with two-byte steps writes the edges.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Gpu;
use super::buffers::COPY_SCRATCH;
use super::submit::WORK_PER_BYTE;
use crate::dtype::DType;
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::kernel::{Access, Implementations, Kernel, Launch, Range, Variant};
use crate::scalars;

/// Bytes of a staging page; times `MAX_PAGES`, the limit for all uploads.
const PAGE_BYTES: u64 = 4 << 20;
const MAX_PAGES: usize = 4;
/// Bytes of one piece of a copy within one buffer, which goes through scratch.
const PIECE_BYTES: u64 = 16 << 20;

/// Staging pages, which the host writes and the GPU copies from.
#[derive(Default)]
pub struct Staging {
    free: Vec<wgpu::Buffer>,
    current: Option<(wgpu::Buffer, u64)>,
    /// Written pages, used by commands that are not submitted yet.
    spent: Vec<wgpu::Buffer>,
    /// Pages being mapped again.
    mapping: VecDeque<(wgpu::Buffer, Arc<AtomicBool>)>,
}

impl Staging {
    /// Unmaps the pages that encoded commands copy from.
    pub fn before_submit(&mut self) {
        self.spent.extend(self.current.take().map(|(page, _)| page));
        self.spent.iter().for_each(wgpu::Buffer::unmap);
    }

    /// Requests mapping of those pages.
    pub fn after_submit(&mut self) {
        for page in self.spent.drain(..) {
            let back = Arc::new(AtomicBool::new(false));
            let ready = back.clone();
            page.map_async(wgpu::MapMode::Write, .., move |mapped| {
                ready.store(mapped.is_ok(), Ordering::Release);
            });
            self.mapping.push_back((page, back));
        }
    }

    /// Drops all pages but one, when idle.
    pub fn trim(&mut self) {
        self.collect();
        self.free.truncate(1);
    }

    /// Drops all free pages.
    pub fn clear(&mut self) {
        self.collect();
        self.free.clear();
    }

    fn collect(&mut self) {
        while self.mapping.front().is_some_and(|(_, back)| back.load(Ordering::Acquire)) {
            self.free.extend(self.mapping.pop_front().map(|(page, _)| page));
        }
    }
}

impl Gpu {
    pub(super) fn upload(&mut self, to: &Range, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 != to.bytes {
            fail!(Internal, "{} bytes are given for a range of {}", bytes.len(), to.bytes);
        }
        let target = self.find_buffer(to)?;
        let (head, body) = split_edges(to);
        self.upload_edge(&sub_range(to, 0, head), &bytes[..head as usize])?;
        let mut at = head;
        while at < head + body {
            let n = PAGE_BYTES.min(head + body - at);
            let (page, offset) = self.stage(&bytes[at as usize..(at + n) as usize])?;
            self.submitter.encoder().copy_buffer_to_buffer(&page, offset, &target, to.offset + at, n);
            self.count(n * WORK_PER_BYTE)?;
            at += n;
        }
        self.upload_edge(&sub_range(to, at, to.bytes - at), &bytes[at as usize..])
    }

    /// Writes at most 2 bytes of a word and keeps the others.
    fn upload_edge(&mut self, to: &Range, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut word = [0; 4];
        word[..bytes.len()].copy_from_slice(bytes);
        // Created before staging: creating a buffer may submit, which would unmap the page of the staged word.
        let scratch = self.get_scratch(COPY_SCRATCH, 4)?;
        let (page, offset) = self.stage(&word)?;
        let from = Range { buffer: scratch, offset: 0, ..*to };
        let target = self.find_buffer(&from)?;
        self.submitter.encoder().copy_buffer_to_buffer(&page, offset, &target, 0, 4);
        self.copy_halves(&from, to)
    }

    pub(super) fn zero(&mut self, to: &Range) -> Result<()> {
        let target = self.find_buffer(to)?;
        let (head, body) = split_edges(to);
        self.upload_edge(&sub_range(to, 0, head), &[0; 2][..head as usize])?;
        if body > 0 {
            self.submitter.encoder().clear_buffer(&target, to.offset + head, Some(body));
            self.count(body * WORK_PER_BYTE)?;
        }
        let tail = to.bytes - head - body;
        self.upload_edge(&sub_range(to, head + body, tail), &[0; 2][..tail as usize])
    }

    /// Copies between ranges, which may overlap within one buffer.
    pub(super) fn copy(&mut self, from: &Range, to: &Range) -> Result<()> {
        if from.bytes != to.bytes {
            fail!(Internal, "a copy of {} bytes to {}", from.bytes, to.bytes);
        }
        if from.buffer != to.buffer {
            return self.copy_between_buffers(from, to);
        }
        let pieces = from.bytes.div_ceil(PIECE_BYTES);
        for k in 0..pieces {
            // In the direction in which no piece is overwritten before it is read.
            let k = if to.offset > from.offset { pieces - 1 - k } else { k };
            let n = PIECE_BYTES.min(from.bytes - k * PIECE_BYTES);
            let (from, to) = (sub_range(from, k * PIECE_BYTES, n), sub_range(to, k * PIECE_BYTES, n));
            let shift = from.offset % 4;
            let buffer = self.get_scratch(COPY_SCRATCH, shift + n)?;
            let between = Range { buffer, offset: shift, ..from };
            self.copy_between_buffers(&from, &between)?;
            self.copy_between_buffers(&between, &to)?;
        }
        Ok(())
    }

    fn copy_between_buffers(&mut self, from: &Range, to: &Range) -> Result<()> {
        if from.offset % 4 != to.offset % 4 {
            return self.copy_halves(from, to);
        }
        let (source, target) = (self.find_buffer(from)?, self.find_buffer(to)?);
        let (head, body) = split_edges(to);
        self.copy_halves(&sub_range(from, 0, head), &sub_range(to, 0, head))?;
        if body > 0 {
            let encoder = self.submitter.encoder();
            encoder.copy_buffer_to_buffer(&source, from.offset + head, &target, to.offset + head, body);
            self.count(body * WORK_PER_BYTE)?;
        }
        let rest = head + body;
        self.copy_halves(&sub_range(from, rest, to.bytes - rest), &sub_range(to, rest, to.bytes - rest))
    }

    /// Copies in steps of two bytes and keeps the other half of the words at both ends.
    fn copy_halves(&mut self, from: &Range, to: &Range) -> Result<()> {
        if (from.offset | to.offset | to.bytes) % 2 == 1 {
            fail!(Internal, "a copy of {} bytes starts or ends in the middle of two", to.bytes);
        }
        let window = ((self.binding_limit - 8) & !3).min(PIECE_BYTES);
        let mut at = 0;
        while at < to.bytes {
            let n = (window - (to.offset + at) % 4).min(to.bytes - at);
            let (from, to) = (sub_range(from, at, n), sub_range(to, at, n));
            let (source, source_at) = enclosing_words(&from);
            let (target, target_at) = enclosing_words(&to);
            self.launch(&Launch {
                kernel: &COPY_HALVES,
                params: [0; 4],
                groups: (target.bytes / 4).div_ceil(64) as u32,
                bindings: [source, target].into_iter().collect(),
                scalars: Halves { source_half: source_at, to_half: target_at, count: (n / 2) as u32 }.words(),
                threads: 64,
                work: 0,
            })?;
            at += n;
        }
        Ok(())
    }

    /// Writes at most a page of bytes to staging memory for the next submission.
    fn stage(&mut self, bytes: &[u8]) -> Result<(wgpu::Buffer, u64)> {
        let n = (bytes.len() as u64).next_multiple_of(8);
        if let Some((page, used)) = &self.staging.current
            && used + n > page.size()
        {
            self.staging.spent.extend(self.staging.current.take().map(|(page, _)| page));
        }
        if self.staging.current.is_none() {
            self.staging.current = Some((self.take_page()?, 0));
        }
        let Some((page, used)) = &mut self.staging.current else {
            fail!(Internal, "no page to upload through");
        };
        let offset = *used;
        *used += n;
        let mut view = page
            .get_mapped_range_mut(offset..offset + n)
            .map_err(|e| Error::new(Code::DeviceLost, format!("a page for uploads is gone: {e}")))?;
        view.slice(..bytes.len()).copy_from_slice(bytes);
        Ok((page.clone(), offset))
    }

    fn take_page(&mut self) -> Result<wgpu::Buffer> {
        loop {
            self.staging.collect();
            if let Some(page) = self.staging.free.pop() {
                return Ok(page);
            }
            if self.staging.spent.len() + self.staging.mapping.len() < MAX_PAGES {
                return self.new_buffer(
                    PAGE_BYTES,
                    wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
                    true,
                );
            }
            self.submit()?;
            self.submitter.wait_for_oldest(Duration::from_millis(200))?;
        }
    }
}

/// Returns the bytes before the first whole word of a range, and the bytes of whole words.
fn split_edges(range: &Range) -> (u64, u64) {
    let head = (range.offset.next_multiple_of(4) - range.offset).min(range.bytes);
    (head, (range.bytes - head) & !3)
}

fn sub_range(range: &Range, start: u64, bytes: u64) -> Range {
    Range { offset: range.offset + start, bytes, ..*range }
}

/// Returns the whole words around a range, and the half of the first word at which the range starts.
fn enclosing_words(range: &Range) -> (Range, u32) {
    let offset = range.offset & !3;
    let bytes = (range.offset + range.bytes).next_multiple_of(4) - offset;
    (Range { offset, bytes, dtype: DType::I32, ..*range }, (range.offset % 4 / 2) as u32)
}

scalars! {
    struct Halves { source_half: u32, to_half: u32, count: u32 }
}

/// Copies `count` halves of words; one invocation for each word of the target.
static COPY_HALVES: Kernel = Kernel {
    name: "copy_halves",
    bindings: &[("source", Access::Read), ("to", Access::ReadWrite)],
    scalars: Halves::members,
    // Other devices copy bytes.
    implementations: Implementations::Gpu(|_| {
        "
fn half_of(i: u32, kept: u32) -> u32 {
  if i < p.to_half || i >= p.to_half + p.count { return kept; }
  let s = i - p.to_half + p.source_half;
  return (u32(load_source(s >> 1u)) >> (16u * (s & 1u))) & 0xffffu;
}
fn kernel(group: u32, lane: u32) {
  let i = group * THREADS + lane;
  if 2u * i >= p.to_half + p.count { return; }
  let old = u32(load_to(i));
  let low = half_of(2u * i, old & 0xffffu);
  store_to(i, i32(low | (half_of(2u * i + 1u, old >> 16u) << 16u)));
}
"
        .into()
    }),
    variants: || vec![Variant { params: [0; 4], dtypes: vec![DType::I32; 2], threads: 64 }],
};
