//! Gradients that leave the device, are added to the gradients of other processes, and come back.
//!
//! Both transfers are commands of the device's queue: the host records the next step meanwhile, and the device waits. A
//! bucket is read as soon as backward has completed its gradients, and the device continues with the rest of backward.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::context::Value;
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::recording::{Command, Reply};
use crate::tape::{Completion, Tape, Tensor};

use super::arena::Arena;
use super::{Optimizer, Rule};

type BucketSum = std::result::Result<Vec<u8>, Error>;

/// The host's answer to a bucket: its new values, as bytes, or the reason why there are none.
pub type Answer = Sender<BucketSum>;

/// Gradients of an optimizer that are being read in buckets. Dropping it fails the buckets that were not read.
pub struct Exchange {
    /// In the order in which they are read.
    buckets: Vec<Bucket>,
    /// The number of buckets that were read.
    read: usize,
    /// The buckets of each parameter, by the tensor's id.
    bucket_indices: HashMap<u64, Vec<usize>>,
}

/// Neighbouring gradients, or a part of one.
struct Bucket {
    range: Value,
    /// Its parameters, with their gradients' ranges of the arena.
    parameters: Vec<(Tensor, Value)>,
    /// The number of them to which backward will still add.
    incomplete: usize,
    reply: Option<Reply>,
    from: Receiver<BucketSum>,
}

/// The range of a bucket, and the locations of its parameters.
struct BucketPlan {
    block: usize,
    start: usize,
    count: usize,
    locations: Range<usize>,
}

impl<R: Rule> Optimizer<R> {
    /// Returns the number of values of each bucket, at most `most`, in the order in which the buckets are read. The order
    /// depends on the parameters alone: it is the reverse of their order in the groups, which backward is assumed to
    /// follow.
    ///
    /// # Errors
    /// `ERR_OPTION` if `most` is 0.
    pub fn bucket_sizes(&self, most: usize) -> Result<Vec<usize>> {
        if most == 0 {
            fail!(Option, "{}: a bucket holds at least one value", R::NAME);
        }
        Ok(plan(&self.arena, most).iter().map(|planned| planned.count).collect())
    }

    /// Begins to read the gradients in buckets (see `bucket_sizes`). The host's answer to a bucket replaces its gradients.
    /// `replies` has one receiver for each bucket. `Exchange::backward` reads the buckets that it completes, and
    /// `finish_exchange` the remaining ones. Nothing else may change gradients between the two.
    ///
    /// # Errors
    /// The errors of `bucket_sizes` and `Arena::gather`; `ERR_INTERNAL` for another number of receivers.
    pub fn begin_exchange(&self, most: usize, replies: Vec<Reply>) -> Result<(Exchange, Vec<Answer>)> {
        let sizes = self.bucket_sizes(most)?;
        if sizes.len() != replies.len() {
            fail!(Internal, "{} buckets have {} receivers", sizes.len(), replies.len());
        }
        self.arena.gather()?;
        let (mut buckets, mut answers) = (Vec::with_capacity(sizes.len()), Vec::with_capacity(sizes.len()));
        let mut bucket_indices: HashMap<u64, Vec<usize>> = HashMap::new();
        for (planned, reply) in plan(&self.arena, most).into_iter().zip(replies) {
            let (send, from) = channel();
            let locations = &self.arena.locations()[planned.locations];
            for location in locations {
                bucket_indices.entry(location.tensor.id()).or_default().push(buckets.len());
            }
            let gradients = self.arena.gradient_block(planned.block);
            buckets.push(Bucket {
                range: gradients.sub_range(planned.start, [planned.count]),
                parameters: locations.iter().map(|p| (p.tensor.clone(), self.arena.gradient(p))).collect(),
                incomplete: 0,
                reply: Some(reply),
                from,
            });
            answers.push(send);
        }
        Ok((Exchange { buckets, read: 0, bucket_indices }, answers))
    }

    /// Reads the remaining buckets, and then lets the device wait for all answers. A parameter without a gradient gets a
    /// gradient of zeros. Dropping an answer fails what depends on it.
    ///
    /// # Errors
    /// The errors of `Arena::gather`.
    pub fn finish_exchange(&self, mut exchange: Exchange) -> Result<()> {
        self.arena.gather()?;
        exchange.buckets.iter_mut().for_each(|bucket| bucket.incomplete = 0);
        exchange.read_complete();
        let cx = self.arena.context();
        for Bucket { range, from, .. } in exchange.buckets.drain(..) {
            cx.push(Command::Receive { to: range.range(), from });
            range.storage.record_write();
        }
        cx.flush();
        Ok(())
    }
}

impl Exchange {
    /// Records the backward pass that adds the last part of the gradients, and reads each bucket between the operation
    /// that completes it and the ones after that.
    ///
    /// # Errors
    /// The errors of `Tape::backward`.
    pub fn backward(&mut self, tape: &Tape, root: &Tensor) -> Result<()> {
        tape.backward_reporting(root, self)
    }

    /// Reads complete buckets in order, and stops before the first incomplete one.
    fn read_complete(&mut self) {
        while let Some(bucket) = self.buckets.get_mut(self.read).filter(|bucket| bucket.incomplete == 0) {
            bucket.read();
            self.read += 1;
        }
    }

    fn update_buckets(&mut self, parameter: &Tensor, mut change: impl FnMut(&mut Bucket)) {
        for bucket in self.bucket_indices.get(&parameter.id()).into_iter().flatten() {
            change(&mut self.buckets[*bucket]);
        }
    }
}

impl Completion for Exchange {
    fn expect(&mut self, leaves: &[Tensor]) {
        for leaf in leaves {
            self.update_buckets(leaf, |bucket| bucket.incomplete += 1);
        }
        self.read_complete();
    }

    fn complete(&mut self, leaf: &Tensor) {
        self.update_buckets(leaf, |bucket| bucket.incomplete -= 1);
        self.read_complete();
    }
}

impl Bucket {
    fn read(&mut self) {
        let cx = self.range.context();
        for (tensor, gradient) in self.parameters.iter().filter(|(tensor, _)| tensor.grad().is_none()) {
            cx.zero(gradient);
            gradient.storage.record_write();
            tensor.set_grad(Some(gradient.clone()));
        }
        if let Some(reply) = self.reply.take() {
            cx.read(&self.range, reply);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        for reply in self.buckets.iter_mut().filter_map(|bucket| bucket.reply.take()) {
            reply(Err(Error::new(Code::Aborted, "the step was given up before its gradients were complete")));
        }
    }
}

/// Divides the gradients into buckets of at most `most` values. A bucket belongs to one group. Buckets of several groups
/// are ordered by the location of their first parameter in its group.
fn plan(arena: &Arena, most: usize) -> Vec<BucketPlan> {
    let locations = arena.locations();
    let mut planned: Vec<(f64, BucketPlan)> = Vec::new();
    let mut end = locations.len();
    while end > 0 {
        let last = &locations[end - 1];
        let stop = last.start + last.size;
        let fits = |i: &usize| {
            let location = &locations[*i];
            location.group == last.group && location.block == last.block && stop - location.start <= most
        };
        let first = (0..end - 1).rev().take_while(fits).last().unwrap_or(end - 1);
        let group = locations.partition_point(|p| p.group < last.group)
            ..locations.partition_point(|p| p.group <= last.group);
        let order = (first - group.start) as f64 / group.len() as f64;
        for start in (locations[first].start..stop).step_by(most) {
            let count = most.min(stop - start);
            planned.push((order, BucketPlan { block: last.block, start, count, locations: first..end }));
        }
        end = first;
    }
    planned.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    planned.into_iter().map(|(_, planned)| planned).collect()
}
