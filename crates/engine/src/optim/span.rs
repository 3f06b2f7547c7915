//! Spans of parameters that a rule updates in one launch.
//!
//! Layout: value, gradient and states are equal ranges of the arenas; one invocation per element. A rule's kernel has
//! `BINDINGS`, then its states; its first scalar is the span's size.

use std::rc::Rc;

use smallvec::SmallVec;

use super::clip::VERDICT_SIZE;
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::scalars::Words;
use crate::kernel::{Access, Kernel, Launch, Variant};
use crate::launch::{Bind, for_each_window};

const THREADS: u32 = 128;

/// The first bindings of every rule's kernel.
pub const BINDINGS: [(&str, Access); 3] =
    [("grad", Access::Read), ("verdict", Access::Read), ("value", Access::ReadWrite)];

/// The variant of a rule's kernel, with `states` values per element.
pub fn list_variants(states: usize) -> Vec<Variant> {
    vec![Variant { params: [0; 4], dtypes: vec![DType::F32; BINDINGS.len() + states], threads: THREADS }]
}

/// Neighbouring parameters that a rule updates in one launch: ranges of the arenas.
pub struct Span {
    pub value: Value,
    pub grad: Value,
    /// One for each of `Rule::STATES`; empty if the rule keeps no state.
    pub states: Vec<Value>,
    /// See `clip::Verdict`.
    pub verdict: Value,
}

impl Span {
    /// Appends `kernel` with the scalars for the span's elements; `cost` is the work per element.
    pub(super) fn launch(
        &self,
        cx: &Rc<Context>,
        name: &str,
        kernel: &'static Kernel,
        scalars: impl Fn(u32) -> Words,
        cost: u64,
    ) -> Result<()> {
        let element = |v| Bind::new(v, &[1], 1);
        let mut binds: SmallVec<[Bind; 6]> = SmallVec::from_iter([
            element(&self.grad),
            Bind::new(&self.verdict, &[0], VERDICT_SIZE),
            element(&self.value),
        ]);
        binds.extend(self.states.iter().map(element));
        for_each_window(cx, name, &[self.value.size()], &[], &binds, |w| {
            let size = w.count[0] as u32;
            cx.launch(Launch {
                kernel,
                params: [0; 4],
                bindings: w.ranges,
                scalars: scalars(size),
                groups: size.div_ceil(THREADS),
                threads: THREADS,
                work: cost * size as u64,
            });
        })
    }
}
