//! Gradients of an optimizer that JavaScript adds to the gradients of other processes.

use lowrank_engine::error::{self as engine, Code, fail_code};
use lowrank_engine::optim::{Answer, Exchange};
use lowrank_engine::recording::Reply;
use napi::bindgen_prelude::{Env, Object, Uint8Array};
use napi_derive::napi;

use crate::error::{Result, wrap_napi_error};
use crate::optimizer::with_optimizer;
use crate::session::{AnyOptimizer, Session, copy_to_js};

/// The buckets of one exchange: promises of their values, and the numbers by which they are answered.
#[napi(object, object_from_js = false)]
pub struct Buckets<'env> {
    #[napi(ts_type = "Promise<Uint8Array | Failure>[]")]
    pub values: Vec<Object<'env>>,
    pub answers: Vec<u32>,
}

#[napi]
impl Session {
    /// Begins to read an optimizer's gradients in buckets of at most `most` values. An optimizer has one exchange at a
    /// time.
    #[napi(catch_unwind)]
    pub fn begin_exchange<'env>(&self, env: &'env Env, optimizer: u32, most: u32) -> Result<Buckets<'env>> {
        let count = self
            .with_state(|s| with_optimizer!(s.optimizer(optimizer)?, o => o.bucket_sizes(most as usize)))?
            .len();
        let mut values = Vec::with_capacity(count);
        let mut replies: Vec<Reply> = Vec::with_capacity(count);
        for _ in 0..count {
            let (deferred, promise) = env.create_deferred().map_err(wrap_napi_error)?;
            values.push(promise);
            replies.push(Box::new(move |bytes| deferred.resolve(move |env: Env| copy_to_js(&env, bytes))));
        }
        let answers = self.with_state(|s| {
            let (exchange, made) =
                with_optimizer!(s.optimizer(optimizer)?, o => o.begin_exchange(most as usize, replies))?;
            s.exchanges.insert(optimizer, exchange);
            Ok(made.into_iter().map(|answer| s.insert_answer(answer)).collect())
        })?;
        Ok(Buckets { values, answers })
    }

    /// Records the last backward pass of a step, from a single element; it reads each bucket that it completes.
    #[napi(catch_unwind)]
    pub fn exchange_backward(&self, optimizer: u32, id: u32) -> Result<()> {
        self.with_state(|s| {
            let (tape, root) = (s.tape.clone(), s.tensor(id)?);
            s.exchange(optimizer)?.backward(&tape, &root)
        })
    }

    /// Reads the remaining buckets. The device then waits until each bucket is answered with as many bytes.
    #[napi(catch_unwind)]
    pub fn finish_exchange(&self, optimizer: u32) -> Result<()> {
        self.with_state(|s| {
            s.exchange(optimizer)?;
            let Some(exchange) = s.exchanges.remove(&optimizer) else { return Ok(()) };
            with_optimizer!(s.optimizer(optimizer)?, o => o.finish_exchange(exchange))
        })
    }

    /// Ends an exchange that was begun and not finished; its answers are no longer expected.
    #[napi(catch_unwind)]
    pub fn cancel_exchange(&self, optimizer: u32, answers: &[u32]) {
        let mut state = self.state.borrow_mut();
        if state.exchanges.remove(&optimizer).is_some() {
            answers.iter().for_each(|answer| drop(state.answers.remove(answer)));
        }
    }

    /// Answers a bucket with its new values.
    #[napi(catch_unwind)]
    pub fn answer_bucket(&self, answer: u32, values: Uint8Array) -> Result<()> {
        let send = self.with_state(|s| s.take_answer(answer))?;
        // The device may have ended.
        let _ = send.send(Ok(values.to_vec()));
        Ok(())
    }

    /// Answers a bucket with the reason why it has no new values.
    #[napi(catch_unwind)]
    pub fn fail_bucket(&self, answer: u32, message: String) -> Result<()> {
        let send = self.with_state(|s| s.take_answer(answer))?;
        let _ = send.send(Err(fail_code(Code::Aborted, message)));
        Ok(())
    }
}

impl crate::session::State {
    fn exchange(&mut self, optimizer: u32) -> engine::Result<&mut Exchange> {
        let found = self.exchanges.get_mut(&optimizer);
        found.ok_or_else(|| fail_code(Code::Internal, "the optimizer has no exchange of gradients"))
    }

    fn insert_answer(&mut self, answer: Answer) -> u32 {
        self.answer_count = self.answer_count.wrapping_add(1);
        self.answers.insert(self.answer_count, answer);
        self.answer_count
    }

    fn take_answer(&mut self, id: u32) -> engine::Result<Answer> {
        let found = self.answers.remove(&id);
        found.ok_or_else(|| fail_code(Code::Internal, "a bucket is answered twice"))
    }
}
