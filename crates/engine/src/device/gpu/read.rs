//! Replies: reads and fences wait in a queue until their submission is complete.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Gpu;
use super::canary::{self, PROOF};
use super::submit::WORK_PER_BYTE;
use crate::error::{Code, Error, Result};
use crate::kernel::Range;
use crate::recording::Reply;

/// The most bytes of one piece of a read, and of all pending reads.
const PIECE_BYTES: u64 = (4 << 20) - 64;
const MAX_PENDING_BYTES: u64 = 16 << 20;
/// The most read buffers that are kept for later reads; buffers above `MAX_IDLE_SIZE` are kept only while there is
/// work.
const MAX_IDLE_BUFFERS: usize = 8;
const MAX_IDLE_SIZE: u64 = 64 << 10;

/// A reply that the host waits for.
pub struct Pending {
    /// The submission after which it is sent.
    after: u64,
    kind: PendingReply,
}

enum PendingReply {
    Fence(Option<Reply>),
    Piece {
        buffer: wgpu::Buffer,
        /// The requested bytes of the buffer.
        from: usize,
        to: usize,
        /// Whether mapping was requested, and whether it is complete.
        requested: bool,
        mapped: Arc<AtomicBool>,
        /// The number in the proof of its submission, once that is sealed.
        proof: Option<u32>,
        split_read: Rc<RefCell<SplitRead>>,
    },
}

/// A read that is split into pieces.
struct SplitRead {
    bytes: Vec<u8>,
    remaining: usize,
    reply: Option<Reply>,
}

impl Gpu {
    pub(super) fn fence(&mut self, reply: Reply) {
        let after = self.submitter.submitted() + u64::from(self.submitter.has_commands());
        self.pending.push_back(Pending { after, kind: PendingReply::Fence(Some(reply)) });
    }

    pub(super) fn read(&mut self, from: &Range, reply: Reply) -> Result<()> {
        let source = match self.find_buffer(from) {
            Ok(source) => source,
            Err(error) => {
                reply(Err(error.clone()));
                return Err(error);
            }
        };
        let split_read = Rc::new(RefCell::new(SplitRead {
            bytes: Vec::with_capacity(from.bytes as usize),
            remaining: from.bytes.div_ceil(PIECE_BYTES) as usize,
            reply: Some(reply),
        }));
        if from.bytes == 0
            && let Some(reply) = split_read.borrow_mut().reply.take()
        {
            self.fence(reply);
        }
        let mut at = 0;
        while at < from.bytes {
            let n = PIECE_BYTES.min(from.bytes - at);
            let start = (from.offset + at) & !3;
            let end = (from.offset + at + n).next_multiple_of(4);
            let buffer = match self.take_read_buffer(end - start) {
                Ok(buffer) => buffer,
                Err(error) => {
                    if let Some(reply) = split_read.borrow_mut().reply.take() {
                        reply(Err(error.clone()));
                    }
                    return Err(error);
                }
            };
            self.submitter.encoder().copy_buffer_to_buffer(&source, start, &buffer, 0, end - start);
            let skip = (from.offset + at - start) as usize;
            self.reading += buffer.size();
            self.pending.push_back(Pending {
                after: self.submitter.submitted() + 1,
                kind: PendingReply::Piece {
                    buffer,
                    from: skip,
                    to: skip + n as usize,
                    requested: false,
                    mapped: Arc::default(),
                    proof: None,
                    split_read: split_read.clone(),
                },
            });
            self.count(n * WORK_PER_BYTE)?;
            at += n;
        }
        Ok(())
    }

    fn take_read_buffer(&mut self, bytes: u64) -> Result<wgpu::Buffer> {
        while self.reading > 0 && self.reading + bytes > MAX_PENDING_BYTES {
            self.submit()?;
            self.submitter.wait_for_oldest(Duration::from_millis(200))?;
            self.send_replies();
        }
        let size = (bytes + PROOF).next_power_of_two().max(4096);
        if let Some(i) = self.read_buffers.iter().position(|b| b.size() == size) {
            return Ok(self.read_buffers.swap_remove(i));
        }
        self.new_buffer(size, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST, false)
    }

    pub(super) fn trim_reads(&mut self) {
        self.read_buffers.retain(|buffer| buffer.size() <= MAX_IDLE_SIZE);
    }

    /// Ends the encoded work with the proof that it ran, which is copied into each read buffer.
    pub(super) fn seal(&mut self) {
        let after = self.submitter.submitted() + 1;
        let is_current = |pending: &&mut Pending| pending.after == after;
        let written = self.written.take().and_then(|span| Some((self.buffers.get(&span.buffer)?, span.base)));
        let mut proofs = Vec::new();
        let mut reads = Vec::new();
        for pending in self.pending.iter_mut().rev().take_while(is_current) {
            if let PendingReply::Piece { buffer, proof, .. } = &mut pending.kind {
                reads.push(&*buffer);
                proofs.push(proof);
            }
        }
        let number = self.canary.seal(self.submitter.encoder(), written, reads.into_iter());
        for proof in proofs {
            *proof = Some(number);
        }
    }

    /// Requests mapping of the read buffers that were submitted since the last call.
    pub(super) fn request_maps(&mut self) {
        let submitted = self.submitter.submitted();
        for pending in self.pending.iter_mut().rev() {
            if let PendingReply::Piece { buffer, requested, mapped, .. } = &mut pending.kind {
                if *requested {
                    return;
                }
                if pending.after <= submitted {
                    *requested = true;
                    let (mapped, faults) = (mapped.clone(), self.faults.clone());
                    buffer.map_async(wgpu::MapMode::Read, .., move |result| match result {
                        Ok(()) => mapped.store(true, Ordering::Release),
                        Err(e) => faults.latch(Error::new(Code::DeviceLost, format!("a read failed: {e}"))),
                    });
                }
            }
        }
    }

    /// Whether a reply waits for work that is not submitted yet.
    pub(super) fn has_unsubmitted_reply(&self) -> bool {
        self.pending.back().is_some_and(|pending| pending.after > self.submitter.submitted())
    }

    /// Sends the replies of complete submissions, oldest first.
    pub(super) fn send_replies(&mut self) {
        let done = self.submitter.done();
        while let Some(pending) = self.pending.front_mut().filter(|p| p.after <= done) {
            match &mut pending.kind {
                PendingReply::Fence(reply) => {
                    if let Some(reply) = reply.take() {
                        reply(Ok(Vec::new()));
                    }
                }
                PendingReply::Piece { mapped, .. } if !mapped.load(Ordering::Acquire) => return,
                PendingReply::Piece { buffer, from, to, proof, split_read, .. } => {
                    let mut split_read = split_read.borrow_mut();
                    let failed = match buffer.get_mapped_range(..) {
                        Ok(view) => {
                            split_read.bytes.extend_from_slice(&view[*from..*to]);
                            proof.and_then(|number| canary::check(&view, number).err())
                        }
                        Err(e) => Some(Error::new(Code::DeviceLost, format!("a read failed: {e}"))),
                    };
                    if let Some(error) = &failed {
                        self.faults.latch(error.clone());
                    }
                    buffer.unmap();
                    self.reading -= buffer.size();
                    if self.read_buffers.len() < MAX_IDLE_BUFFERS {
                        self.read_buffers.push(buffer.clone());
                    }
                    split_read.remaining -= 1;
                    if (split_read.remaining == 0 || failed.is_some())
                        && let Some(reply) = split_read.reply.take()
                    {
                        reply(failed.map_or_else(|| Ok(std::mem::take(&mut split_read.bytes)), Err));
                    }
                }
            }
            self.pending.pop_front();
        }
    }

    /// Sends an error to all pending replies.
    pub(super) fn reject(&mut self, error: &Error) {
        for pending in self.pending.drain(..) {
            let reply = match pending.kind {
                PendingReply::Fence(reply) => reply,
                PendingReply::Piece { split_read, .. } => split_read.borrow_mut().reply.take(),
            };
            if let Some(reply) = reply {
                reply(Err(error.clone()));
            }
        }
        self.reading = 0;
    }
}
