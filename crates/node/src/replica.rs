//! Replicas of an optimizer's parameters on other devices, by number.

use std::rc::Rc;

use lowrank_engine::error::{self as engine, Code, fail_code};
use lowrank_engine::optim::Replica;
use lowrank_engine::tape::Tensor;
use napi_derive::napi;

use crate::error::Result;
use crate::optimizer::with_optimizer;
use crate::session::{AnyOptimizer, Session, State};

impl State {
    fn replica(&self, id: u32) -> engine::Result<Rc<Replica>> {
        let found = self.replicas.get(&id).cloned();
        found.ok_or_else(|| fail_code(Code::Disposed, "a replica is used after it was disposed"))
    }
}

#[napi]
impl Session {
    /// Creates a replica of an optimizer's parameters, on another device: the same groups, in the same order.
    #[napi(catch_unwind)]
    pub fn replica(&self, groups: Vec<Vec<u32>>) -> Result<u32> {
        self.with_state(|s| {
            let mut parameters: Vec<(usize, Tensor)> = Vec::new();
            for (group, ids) in groups.iter().enumerate() {
                parameters.extend(s.parameters(ids)?.into_iter().map(|tensor| (group, tensor)));
            }
            let made = Replica::new(&parameters)?;
            s.optimizer_count += 1;
            let id = s.optimizer_count;
            s.replicas.insert(id, Rc::new(made));
            Ok(id)
        })
    }

    /// Adds a replica's gradients to the optimizer's, and removes the replica's.
    #[napi(catch_unwind)]
    pub fn add_replica_gradients(&self, optimizer: u32, replica: u32) -> Result<()> {
        self.with_state(|s| {
            let replica = s.replica(replica)?;
            with_optimizer!(s.optimizer(optimizer)?, o => o.add_gradients(&replica))?;
            replica.zero_grad();
            Ok(())
        })
    }

    /// Copies the optimizer's values to a replica.
    #[napi(catch_unwind)]
    pub fn copy_values_to_replica(&self, optimizer: u32, replica: u32) -> Result<()> {
        self.with_state(|s| {
            let replica = s.replica(replica)?;
            with_optimizer!(s.optimizer(optimizer)?, o => o.copy_values_to(&replica))
        })
    }

    /// Frees the replica's gradients; does nothing if its number is already free.
    #[napi(catch_unwind)]
    pub fn dispose_replica(&self, id: u32) {
        let removed = self.state.borrow_mut().replicas.remove(&id);
        drop(removed);
    }
}
