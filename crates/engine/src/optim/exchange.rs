//! Gradients that leave the device, are added to the gradients of other processes, and come back.
//!
//! Both transfers are commands of the device's queue: the host records the next step meanwhile, and the device waits.

use std::sync::mpsc::{Sender, channel};

use crate::context::Value;
use crate::error::{Error, Result};
use crate::fail;
use crate::recording::{Command, Reply};

use super::{Optimizer, Rule};

/// The host's answer to a bucket: its new values, as bytes, or the reason why there are none.
pub type Answer = Sender<std::result::Result<Vec<u8>, Error>>;

impl<R: Rule> Optimizer<R> {
    /// Returns the number of values of each bucket: parts of all gradients, in the order of the arena, of at most `most`
    /// values each.
    ///
    /// # Errors
    /// `ERR_OPTION` if `most` is 0.
    pub fn bucket_sizes(&self, most: usize) -> Result<Vec<usize>> {
        if most == 0 {
            fail!(Option, "{}: a bucket holds at least one value", R::NAME);
        }
        let sizes = self.arena.sizes();
        Ok(sizes.flat_map(|size| (0..size).step_by(most).map(move |at| most.min(size - at))).collect())
    }

    /// Reads the gradients in buckets (see `bucket_sizes`) and replaces each by the host's answer. A parameter without a
    /// gradient gets a gradient of zeros. `replies` has one receiver for each bucket.
    ///
    /// All buckets are read before the device waits for the first answer. Dropping an answer fails what depends on it.
    ///
    /// # Errors
    /// The errors of `bucket_sizes` and `Arena::gather`; `ERR_INTERNAL` for another number of receivers.
    pub fn exchange_gradients(&self, most: usize, replies: Vec<Reply>) -> Result<Vec<Answer>> {
        let sizes = self.bucket_sizes(most)?;
        if sizes.len() != replies.len() {
            fail!(Internal, "{} buckets have {} receivers", sizes.len(), replies.len());
        }
        self.arena.gather()?;
        self.complete_gradients();
        let cx = self.arena.context();
        let buckets = self.buckets(most);
        for (bucket, reply) in buckets.iter().zip(replies) {
            cx.read(bucket, reply);
        }
        let mut answers = Vec::with_capacity(buckets.len());
        for bucket in &buckets {
            let (send, from) = channel();
            cx.push(Command::Receive { to: bucket.range(), from });
            bucket.storage.written();
            answers.push(send);
        }
        cx.flush();
        Ok(answers)
    }

    fn buckets(&self, most: usize) -> Vec<Value> {
        let blocks = self.arena.sizes().enumerate();
        blocks
            .flat_map(|(block, size)| {
                let gradients = self.arena.gradient_block(block);
                (0..size)
                    .step_by(most)
                    .map(move |at| gradients.sub_range(at, [most.min(size - at)]))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// Gives zeros to parameters without a gradient.
    fn complete_gradients(&self) {
        let cx = self.arena.context();
        for place in self.arena.places().iter().filter(|p| p.tensor.grad().is_none()) {
            let gradient = self.arena.gradient(place);
            cx.zero(&gradient);
            gradient.storage.written();
            place.tensor.set_grad(Some(gradient));
        }
    }
}
