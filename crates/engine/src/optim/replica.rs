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
        self.arena.places().iter().for_each(|p| p.tensor.set_grad(None));
    }
}

/// What neighbours in both arenas have in common.
#[derive(PartialEq)]
struct Shared {
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
        let (own, theirs) = (self.arena.present(), replica.arena.present());
        let runs = self.arena.runs(|i| theirs[i].then(|| self.share(replica, i, own[i])));
        for run in &runs {
            let (_, to) = self.arena.ranges(run);
            let from =
                moved(&replica.arena.gradient_block(run.key.block), run.start, run.key.shift, run.count);
            if !run.key.present {
                cx.receive(&from, &to)?;
                continue;
            }
            let received = cx.empty([run.count], to.dtype)?;
            cx.receive(&from, &received)?;
            accumulate(cx, &to, &received)?;
        }
        for (i, place) in self.arena.places().iter().enumerate() {
            if theirs[i] && !own[i] {
                place.tensor.set_grad(Some(self.arena.gradient(place)));
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
        let there = replica.arena.context();
        for run in &self.arena.runs(|i| Some(self.share(replica, i, true))) {
            let (from, _) = self.arena.ranges(run);
            let to = moved(&replica.arena.value_block(run.key.block), run.start, run.key.shift, run.count);
            there.receive(&from, &to)?;
            to.storage.written();
        }
        Ok(())
    }

    fn share(&self, replica: &Replica, i: usize, present: bool) -> Shared {
        let (own, their): (&Location, &Location) = (&self.arena.places()[i], &replica.arena.places()[i]);
        Shared { block: their.block, shift: their.start as isize - own.start as isize, present }
    }

    fn check_replica(&self, replica: &Replica) -> Result<()> {
        let sizes = |arena: &Arena| arena.places().iter().map(|p| p.size).collect::<Vec<_>>();
        if sizes(&self.arena) != sizes(&replica.arena) {
            fail!(ShapeMismatch, "a replica has other parameters than its optimizer");
        }
        Ok(())
    }
}

fn moved(block: &Value, start: usize, shift: isize, count: usize) -> Value {
    block.sub_range(start.checked_add_signed(shift).expect("a range of the replica"), [count])
}
