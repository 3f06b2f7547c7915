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
const PIECE: u64 = (4 << 20) - 64;
const WAITING: u64 = 16 << 20;
/// The most read buffers that are kept for later reads; buffers above `IDLE_BYTES` are kept only while there is work.
const KEPT: usize = 8;
const IDLE_BYTES: u64 = 64 << 10;

/// A reply that the host waits for.
pub struct Pending {
    /// The submission after which it is sent.
    after: u64,
    answer: Answer,
}

enum Answer {
    Fence(Option<Reply>),
    Piece {
        buffer: wgpu::Buffer,
        /// The requested bytes of the buffer.
        from: usize,
        to: usize,
        /// Whether mapping was requested, and whether it is complete.
        asked: bool,
        here: Arc<AtomicBool>,
        /// The number in the proof of its submission, once that is sealed.
        proof: Option<u32>,
        whole: Rc<RefCell<SplitRead>>,
    },
}

/// A read that is split into pieces.
struct SplitRead {
    bytes: Vec<u8>,
    left: usize,
    reply: Option<Reply>,
}

impl Gpu {
    pub(super) fn fence(&mut self, reply: Reply) {
        let after = self.submitter.submitted() + u64::from(self.submitter.has_commands());
        self.pending.push_back(Pending { after, answer: Answer::Fence(Some(reply)) });
    }

    pub(super) fn read(&mut self, from: &Range, reply: Reply) -> Result<()> {
        let source = match self.buffer(from) {
            Ok(source) => source,
            Err(error) => {
                reply(Err(error.clone()));
                return Err(error);
            }
        };
        let whole = Rc::new(RefCell::new(SplitRead {
            bytes: Vec::with_capacity(from.bytes as usize),
            left: from.bytes.div_ceil(PIECE) as usize,
            reply: Some(reply),
        }));
        if from.bytes == 0
            && let Some(reply) = whole.borrow_mut().reply.take()
        {
            self.fence(reply);
        }
        let mut at = 0;
        while at < from.bytes {
            let n = PIECE.min(from.bytes - at);
            let start = (from.offset + at) & !3;
            let end = (from.offset + at + n).next_multiple_of(4);
            let buffer = match self.read_buffer(end - start) {
                Ok(buffer) => buffer,
                Err(error) => {
                    if let Some(reply) = whole.borrow_mut().reply.take() {
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
                answer: Answer::Piece {
                    buffer,
                    from: skip,
                    to: skip + n as usize,
                    asked: false,
                    here: Arc::default(),
                    proof: None,
                    whole: whole.clone(),
                },
            });
            self.count(n * WORK_PER_BYTE)?;
            at += n;
        }
        Ok(())
    }

    fn read_buffer(&mut self, bytes: u64) -> Result<wgpu::Buffer> {
        while self.reading > 0 && self.reading + bytes > WAITING {
            self.submit()?;
            self.submitter.wait_for_oldest(Duration::from_millis(200))?;
            self.settle();
        }
        let size = (bytes + PROOF).next_power_of_two().max(4096);
        if let Some(i) = self.read_buffers.iter().position(|b| b.size() == size) {
            return Ok(self.read_buffers.swap_remove(i));
        }
        self.new_buffer(size, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST, false)
    }

    pub(super) fn trim_reads(&mut self) {
        self.read_buffers.retain(|buffer| buffer.size() <= IDLE_BYTES);
    }

    /// Ends the encoded work with the proof that it ran, which is copied into each read buffer.
    pub(super) fn seal(&mut self) {
        let after = self.submitter.submitted() + 1;
        let own = |pending: &&mut Pending| pending.after == after;
        let written = self.written.take().and_then(|span| Some((self.buffers.get(&span.buffer)?, span.base)));
        let mut proofs = Vec::new();
        let mut reads = Vec::new();
        for pending in self.pending.iter_mut().rev().take_while(own) {
            if let Answer::Piece { buffer, proof, .. } = &mut pending.answer {
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
    pub(super) fn ask_for_reads(&mut self) {
        let submitted = self.submitter.submitted();
        for pending in self.pending.iter_mut().rev() {
            if let Answer::Piece { buffer, asked, here, .. } = &mut pending.answer {
                if *asked {
                    return;
                }
                if pending.after <= submitted {
                    *asked = true;
                    let (here, faults) = (here.clone(), self.faults.clone());
                    buffer.map_async(wgpu::MapMode::Read, .., move |mapped| match mapped {
                        Ok(()) => here.store(true, Ordering::Release),
                        Err(e) => faults.latch(Error::new(Code::DeviceLost, format!("a read failed: {e}"))),
                    });
                }
            }
        }
    }

    /// Whether a reply waits for work that is not submitted yet.
    pub(super) fn is_asked(&self) -> bool {
        self.pending.back().is_some_and(|pending| pending.after > self.submitter.submitted())
    }

    /// Sends the replies of complete submissions, oldest first.
    pub(super) fn settle(&mut self) {
        let done = self.submitter.done();
        while let Some(pending) = self.pending.front_mut().filter(|p| p.after <= done) {
            match &mut pending.answer {
                Answer::Fence(reply) => {
                    if let Some(reply) = reply.take() {
                        reply(Ok(Vec::new()));
                    }
                }
                Answer::Piece { here, .. } if !here.load(Ordering::Acquire) => return,
                Answer::Piece { buffer, from, to, proof, whole, .. } => {
                    let mut whole = whole.borrow_mut();
                    let failed = match buffer.get_mapped_range(..) {
                        Ok(view) => {
                            whole.bytes.extend_from_slice(&view[*from..*to]);
                            proof.and_then(|number| canary::check(&view, number).err())
                        }
                        Err(e) => Some(Error::new(Code::DeviceLost, format!("a read failed: {e}"))),
                    };
                    if let Some(error) = &failed {
                        self.faults.latch(error.clone());
                    }
                    buffer.unmap();
                    self.reading -= buffer.size();
                    if self.read_buffers.len() < KEPT {
                        self.read_buffers.push(buffer.clone());
                    }
                    whole.left -= 1;
                    if (whole.left == 0 || failed.is_some())
                        && let Some(reply) = whole.reply.take()
                    {
                        reply(failed.map_or_else(|| Ok(std::mem::take(&mut whole.bytes)), Err));
                    }
                }
            }
            self.pending.pop_front();
        }
    }

    /// Sends an error to all pending replies.
    pub(super) fn reject(&mut self, error: &Error) {
        for pending in self.pending.drain(..) {
            let reply = match pending.answer {
                Answer::Fence(reply) => reply,
                Answer::Piece { whole, .. } => whole.borrow_mut().reply.take(),
            };
            if let Some(reply) = reply {
                reply(Err(error.clone()));
            }
        }
        self.reading = 0;
    }
}
