//! The known results of a device, shared by its thread and by the contexts that record for it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::tuner::{Job, Outcome};
use super::{Class, Store, Stored};
use crate::error::Error;
use crate::kernel::Params;
use crate::recording::CancelToken;

/// Called with a message for the user.
pub type Notice = Arc<dyn Fn(&str) + Send + Sync>;

/// The known results of a device.
pub struct Table {
    /// The device's name in messages.
    device: String,
    /// Whether classes are measured when a run uses them.
    background: bool,
    store: Option<Store>,
    state: Mutex<State>,
    /// Signalled when a job of the queue is done.
    done: Condvar,
}

#[derive(Default)]
struct State {
    chosen: HashMap<Class, Params>,
    /// The file's content at the start, and every variant that was found wrong since.
    stored: Stored,
    /// Results since the file was written.
    new: Stored,
    seen: HashSet<Class>,
    queue: VecDeque<Job>,
    /// Whether the last job from `next` is still being measured.
    busy: bool,
    /// Whether measuring during runs has ended.
    closed: bool,
    outcomes: Vec<Outcome>,
    /// Classes that could not be measured, and the reason.
    failures: Vec<(Class, Error)>,
    listeners: Vec<(CancelToken, Notice)>,
}

impl Table {
    /// `background` enables measuring during runs, and reading earlier results.
    pub fn new(device: impl Into<String>, background: bool, store: Option<Store>) -> Table {
        let stored = store.as_ref().filter(|_| background).map(Store::read).unwrap_or_default();
        let state = Mutex::new(State { stored, ..State::default() });
        Table { device: device.into(), background, store, state, done: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The file of results.
    pub fn file(&self) -> Option<&Path> {
        self.store.as_ref().map(Store::path)
    }

    /// Whether classes are measured when a run uses them.
    pub fn is_background(&self) -> bool {
        self.background
    }

    /// The index in `variants` of the fastest known variant; 0 if none is known. Queues an unknown class.
    pub fn choose(&self, class: Class, variants: impl Iterator<Item = Params> + Clone) -> usize {
        let mut state = self.state();
        let find = |params: Params| variants.clone().position(|variant| variant == params);
        if let Some(chosen) = state.chosen.get(&class) {
            return find(*chosen).unwrap_or(0);
        }
        if !self.background || !state.seen.insert(class) {
            return 0;
        }
        let find_named =
            |name: &String| variants.clone().position(|variant| (class.family.describe)(variant) == *name);
        if let Some(at) = state.stored.variants.get(&class.to_string()).and_then(find_named) {
            let chosen = variants.clone().nth(at).expect("its place was found");
            if !state.is_wrong(&class, chosen) {
                state.chosen.insert(class, chosen);
                return at;
            }
        }
        if !state.closed {
            state.queue.push_back(Job { class, variants: variants.collect(), requested: false });
        }
        0
    }

    /// Queues classes before all others, whether their results are known or not.
    pub fn request(&self, classes: impl IntoIterator<Item = (Class, Vec<Params>)>) {
        let jobs = classes.into_iter().map(|(class, variants)| Job { class, variants, requested: true });
        let mut state = self.state();
        let others = std::mem::take(&mut state.queue);
        state.queue = jobs.chain(others).collect();
    }

    /// Waits until the queue is empty, or `patience` has passed without progress. Returns the results, and the classes
    /// that could not be measured, since the last call.
    pub fn wait(&self, patience: Duration) -> (Vec<Outcome>, Vec<(Class, Error)>) {
        let mut state = self.state();
        let mut done = (state.outcomes.len(), state.failures.len());
        while state.busy || !state.queue.is_empty() {
            let (again, timeout) = self.done.wait_timeout(state, patience).unwrap_or_else(|e| e.into_inner());
            state = again;
            let now = (state.outcomes.len(), state.failures.len());
            if timeout.timed_out() && now == done {
                break;
            }
            done = now;
        }
        (std::mem::take(&mut state.outcomes), std::mem::take(&mut state.failures))
    }

    /// Whether the queue is empty.
    pub fn is_done(&self) -> bool {
        let state = self.state();
        !state.busy && state.queue.is_empty()
    }

    /// The next class to measure.
    pub(super) fn next(&self) -> Option<Job> {
        let mut state = self.state();
        let next = state.queue.pop_front();
        state.busy = next.is_some();
        next
    }

    pub(super) fn record_outcome(&self, outcome: Outcome) {
        let mut state = self.state();
        let (class, chosen) = (outcome.class, outcome.chosen);
        state.chosen.insert(class, chosen);
        state.new.variants.insert(class.to_string(), (class.family.describe)(chosen));
        state.outcomes.push(outcome);
        self.finish(state);
    }

    /// Leaves a class without a result.
    pub(super) fn record_failure(&self, class: &Class, error: &Error) {
        let mut state = self.state();
        state.failures.push((*class, error.clone()));
        self.finish(state);
    }

    /// Ends measuring during runs.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.queue.retain(|job| job.requested);
        self.finish(state);
    }

    /// Ends a job. Writes new results to the file when the queue is empty.
    fn finish(&self, mut state: MutexGuard<State>) {
        state.busy = false;
        let idle = state.queue.is_empty();
        drop(state);
        if idle {
            self.save();
        }
        self.done.notify_all();
    }

    /// Writes new results to the file, also when a process ends before the queue is empty.
    pub fn save(&self) {
        let new = std::mem::take(&mut self.state().new);
        if let Some(store) = &self.store {
            store.add(&new);
        }
    }

    pub(super) fn is_wrong(&self, class: &Class, variant: Params) -> bool {
        self.state().is_wrong(class, variant)
    }

    /// Blacklists the second variant, persistently, since its result differs from the first's; reports it the first
    /// time.
    pub(super) fn exclude(&self, class: &Class, [first, variant]: [Params; 2]) {
        let mut state = self.state();
        let family = class.family;
        let name = wrong_name(class, variant);
        if !state.stored.wrong.insert(name.clone()) {
            return;
        }
        state.new.wrong.insert(name);
        state.chosen.retain(|of, chosen| of.family.name != family.name || *chosen != variant);
        drop(state);
        let [first, variant] = [first, variant].map(family.describe);
        let message = format!(
            "{}: the variant {variant} of {class} gives other numbers than {first}, and is not used; the driver may compile \
             it wrongly",
            self.device
        );
        self.notify(&message);
    }

    /// Calls every registered notice.
    pub fn notify(&self, text: &str) {
        let listeners = self.state().listeners.clone();
        listeners.iter().filter(|(owner, _)| !owner.is_cancelled()).for_each(|(_, notice)| notice(text));
    }

    /// Registers `notice` for messages to the user, until `owner` is cancelled.
    pub fn on_notice(&self, owner: CancelToken, notice: Notice) {
        let mut state = self.state();
        state.listeners.retain(|(owner, _)| !owner.is_cancelled());
        state.listeners.push((owner, notice));
    }
}

impl State {
    fn is_wrong(&self, class: &Class, variant: Params) -> bool {
        self.stored.wrong.contains(&wrong_name(class, variant))
    }
}

/// The file's name for a blacklisted variant of a family.
fn wrong_name(class: &Class, variant: Params) -> String {
    format!("{}: {}", class.family.name, (class.family.describe)(variant))
}
