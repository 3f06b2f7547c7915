//! When a leaf's gradient is complete: backward continues, and adds nothing more to it.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::node::{Node, Parent};
use super::tensor::Tensor;

/// Receives the leaves whose gradients are complete while backward is recorded.
pub trait Completion {
    /// The leaves to which the pass may add; called before it begins.
    fn expect(&mut self, leaves: &[Tensor]);
    /// The gradient of `leaf`, one of the expected leaves, is complete. A leaf that got no gradient counts as complete.
    fn complete(&mut self, leaf: &Tensor);
}

/// The leaves that a root depends on, in the order of their first use. Backward reaches the first use last.
pub(super) struct FirstUses(Vec<(u64, Tensor)>);

impl FirstUses {
    pub fn collect(root: &Rc<Node>) -> FirstUses {
        let mut uses: HashMap<u64, (u64, Tensor)> = HashMap::new();
        let mut seen = HashSet::from([root.sequence]);
        let mut todo = vec![root.clone()];
        while let Some(node) = todo.pop() {
            for parent in &node.parents {
                match parent {
                    Parent::None => {}
                    Parent::Leaf(leaf) => {
                        let (first, _) =
                            uses.entry(leaf.id()).or_insert_with(|| (node.sequence, leaf.clone()));
                        *first = node.sequence.min(*first);
                    }
                    Parent::Node(parent, _) if seen.insert(parent.sequence) => todo.push(parent.clone()),
                    Parent::Node(..) => {}
                }
            }
        }
        let mut uses: Vec<_> = uses.into_values().collect();
        uses.sort_unstable_by_key(|(first, leaf)| (*first, leaf.id()));
        FirstUses(uses)
    }

    pub fn leaves(&self) -> Vec<Tensor> {
        self.0.iter().map(|(_, leaf)| leaf.clone()).collect()
    }

    /// Removes and returns a leaf whose first use is the operation `sequence` or a later one.
    pub fn next_complete(&mut self, sequence: u64) -> Option<Tensor> {
        self.0.pop_if(|(first, _)| *first >= sequence).map(|(_, leaf)| leaf)
    }
}
