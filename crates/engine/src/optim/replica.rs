//! Copies of an optimizer's parameters on another device: their gradients are added to the optimizer's, and its updated
//! values are copied to them.
//!
//! Both transfers are commands of the devices' queues, so the host waits for neither.

use crate::context::{Context, Value};
use crate::error::Result;
use crate::fail;
use crate::kernels::elementwise::accumulate;
use crate::tape::Tensor;

use super::arena::{Arena, Location};
use super::{Optimizer, Rule};

/// The parameters of an optimizer on another device, gathered in a separate arena.
pub struct Replica {
    arena: Arena,
}

impl Replica {
    /// Gathers the parameters, each with its group, in the optimizer's order.
    ///
    /// # Errors
    /// The errors of `Arena::new`; `ERR_OPTION` without parameters.
    pub fn new(parameters: &[(usize, Tensor)]) -> Result<Replica> {
        let Some((_, first)) = parameters.first() else {
            fail!(Option, "a replica: the list of parameters is empty")
        };
        let cx = first.value().context().clone();
        Ok(Replica { arena: Arena::new(&cx, "a replica", parameters)? })
    }

    /// Removes the gradients.
    pub fn zero_grad(&self) {
        self.arena.locations().iter().for_each(|p| p.tensor.set_grad(None));
    }
}

/// What neighbours in both arenas have in common.
#[derive(PartialEq)]
struct SharedRange {
    /// The replica's block, and the distance of its ranges from the optimizer's.
    block: usize,
    shift: isize,
    /// Whether the optimizer's parameter has a gradient.
    present: bool,
}

impl<R: Rule> Optimizer<R> {
    /// Adds the replica's gradients to the optimizer's. A parameter without a gradient gets the replica's.
    ///
    /// # Errors
    /// `ERR_SHAPE_MISMATCH` unless the replica has the optimizer's parameters; the errors of `Arena::gather`.
    pub fn add_gradients(&self, replica: &Replica) -> Result<()> {
        self.check_replica(replica)?;
        self.arena.gather()?;
        replica.arena.gather()?;
        let cx: &std::rc::Rc<Context> = self.arena.context();
        let (own, theirs) = (self.arena.find_present(), replica.arena.find_present());
        let runs = self.arena.runs(|i| theirs[i].then(|| self.find_shared(replica, i, own[i])));
        for run in &runs {
            let (_, to) = self.arena.ranges(run);
            let from = shift_range(
                &replica.arena.gradient_block(run.key.block),
                run.start,
                run.key.shift,
                run.count,
            );
            if !run.key.present {
                cx.receive(&from, &to)?;
                continue;
            }
            let received = cx.empty([run.count], to.dtype)?;
            cx.receive(&from, &received)?;
            accumulate(cx, &to, &received)?;
        }
        for (i, location) in self.arena.locations().iter().enumerate() {
            if theirs[i] && !own[i] {
                location.tensor.set_grad(Some(self.arena.gradient(location)));
            }
        }
        Ok(())
    }

    /// Copies the optimizer's values to the replica.
    ///
    /// # Errors
    /// As `add_gradients`.
    pub fn copy_values_to(&self, replica: &Replica) -> Result<()> {
        self.check_replica(replica)?;
        self.arena.gather()?;
        replica.arena.gather()?;
        let target = replica.arena.context();
        for run in &self.arena.runs(|i| Some(self.find_shared(replica, i, true))) {
            let (from, _) = self.arena.ranges(run);
            let to =
                shift_range(&replica.arena.value_block(run.key.block), run.start, run.key.shift, run.count);
            target.receive(&from, &to)?;
            to.storage.record_write();
        }
        Ok(())
    }

    fn find_shared(&self, replica: &Replica, i: usize, present: bool) -> SharedRange {
        let (own, their): (&Location, &Location) =
            (&self.arena.locations()[i], &replica.arena.locations()[i]);
        SharedRange { block: their.block, shift: their.start as isize - own.start as isize, present }
    }

    fn check_replica(&self, replica: &Replica) -> Result<()> {
        let sizes = |arena: &Arena| arena.locations().iter().map(|p| p.size).collect::<Vec<_>>();
        if sizes(&self.arena) != sizes(&replica.arena) {
            fail!(ShapeMismatch, "a replica has other parameters than its optimizer");
        }
        Ok(())
    }
}

fn shift_range(block: &Value, start: usize, shift: isize, count: usize) -> Value {
    block.sub_range(start.checked_add_signed(shift).expect("a range of the replica"), [count])
}
