//! What is known of a device's forms, shared by its thread and by those who record for it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::tuner::{Job, Outcome};
use super::{Class, Kept, Store};
use crate::error::Error;
use crate::kernel::Params;
use crate::recording::CancelToken;

/// Called with what a user should know.
pub type Notice = Arc<dyn Fn(&str) + Send + Sync>;

/// What is known of the forms on a device.
pub struct Table {
    /// The device, as notices call it.
    device: String,
    /// Whether classes are tried because a run meets them.
    background: bool,
    store: Option<Store>,
    state: Mutex<State>,
    /// Something of the queue is done.
    done: Condvar,
}

#[derive(Default)]
struct State {
    chosen: HashMap<Class, Params>,
    /// What the file had when this began, and every form that was found wrong since.
    kept: Kept,
    /// What is new since the file was written.
    new: Kept,
    seen: HashSet<Class>,
    queue: VecDeque<Job>,
    /// Whether the last job that `next` gave is still being tried.
    busy: bool,
    /// Nothing more is tried because a run meets it.
    closed: bool,
    outcomes: Vec<Outcome>,
    /// Classes that could not be tried, and why.
    failures: Vec<(Class, Error)>,
    listeners: Vec<(CancelToken, Notice)>,
}

impl Table {
    /// `background` has classes tried that runs meet, and what is kept of them read.
    pub fn new(device: impl Into<String>, background: bool, store: Option<Store>) -> Table {
        let kept = store.as_ref().filter(|_| background).map(Store::read).unwrap_or_default();
        let state = Mutex::new(State { kept, ..State::default() });
        Table { device: device.into(), background, store, state, done: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The file that results are kept in.
    pub fn file(&self) -> Option<&Path> {
        self.store.as_ref().map(Store::path)
    }

    /// Whether classes are tried that runs meet.
    pub fn is_background(&self) -> bool {
        self.background
    }

    /// The place in `forms` of the one that is known to be the fastest; 0 where none is. A class that is not known yet
    /// is queued.
    pub fn choose(&self, class: Class, forms: impl Iterator<Item = Params> + Clone) -> usize {
        let mut state = self.state();
        let place = |params: Params| forms.clone().position(|form| form == params);
        if let Some(chosen) = state.chosen.get(&class) {
            return place(*chosen).unwrap_or(0);
        }
        if !self.background || !state.seen.insert(class) {
            return 0;
        }
        let named = |name: &String| forms.clone().position(|form| (class.family.form)(form) == *name);
        if let Some(at) = state.kept.forms.get(&class.to_string()).and_then(named) {
            let chosen = forms.clone().nth(at).expect("its place was found");
            if !state.is_wrong(&class, chosen) {
                state.chosen.insert(class, chosen);
                return at;
            }
        }
        if !state.closed {
            state.queue.push_back(Job { class, forms: forms.collect(), asked: false });
        }
        0
    }

    /// Queues classes before all others, whether they are known or not.
    pub fn ask(&self, classes: impl IntoIterator<Item = (Class, Vec<Params>)>) {
        let jobs = classes.into_iter().map(|(class, forms)| Job { class, forms, asked: true });
        let mut state = self.state();
        let others = std::mem::take(&mut state.queue);
        state.queue = jobs.chain(others).collect();
    }

    /// Waits until nothing is queued; gives up after `patience` without anything done. Returns what was found, and the
    /// classes that could not be tried, since the last call.
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

    /// Whether nothing is queued.
    pub fn is_done(&self) -> bool {
        let state = self.state();
        !state.busy && state.queue.is_empty()
    }

    /// The class to be tried next.
    pub(super) fn next(&self) -> Option<Job> {
        let mut state = self.state();
        let next = state.queue.pop_front();
        state.busy = next.is_some();
        next
    }

    pub(super) fn settle(&self, outcome: Outcome) {
        let mut state = self.state();
        let (class, chosen) = (outcome.class, outcome.chosen);
        state.chosen.insert(class, chosen);
        state.new.forms.insert(class.to_string(), (class.family.form)(chosen));
        state.outcomes.push(outcome);
        self.finish(state);
    }

    /// A class stays without a choice.
    pub(super) fn fail(&self, class: &Class, error: &Error) {
        let mut state = self.state();
        state.failures.push((*class, error.clone()));
        self.finish(state);
    }

    /// Tries nothing more that runs meet.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.queue.retain(|job| job.asked);
        self.finish(state);
    }

    /// A job is done. What is new goes to the file when nothing waits any more.
    fn finish(&self, mut state: MutexGuard<State>) {
        state.busy = false;
        let idle = state.queue.is_empty();
        drop(state);
        if idle {
            self.keep();
        }
        self.done.notify_all();
    }

    /// Has what is new written to the file: also where a process ends before all is tried.
    pub fn keep(&self) {
        let new = std::mem::take(&mut self.state().new);
        if let Some(store) = &self.store {
            store.add(&new);
        }
    }

    pub(super) fn is_wrong(&self, class: &Class, form: Params) -> bool {
        self.state().is_wrong(class, form)
    }

    /// Uses the second form nowhere from now on, in later processes neither, since it gives other numbers than the first;
    /// tells so the first time.
    pub(super) fn drop_wrong(&self, class: &Class, [first, form]: [Params; 2]) {
        let mut state = self.state();
        let family = class.family;
        let name = wrong_name(class, form);
        if !state.kept.wrong.insert(name.clone()) {
            return;
        }
        state.new.wrong.insert(name);
        state.chosen.retain(|of, chosen| of.family.name != family.name || *chosen != form);
        drop(state);
        let [first, form] = [first, form].map(family.form);
        let told = format!(
            "{}: the form {form} of {class} gives other numbers than {first}, and is not used; the driver may compile \
             it wrongly",
            self.device
        );
        self.tell(&told);
    }

    /// Calls everyone who is there.
    pub fn tell(&self, text: &str) {
        let listeners = self.state().listeners.clone();
        listeners.iter().filter(|(owner, _)| !owner.is_cancelled()).for_each(|(_, notice)| notice(text));
    }

    /// Has `notice` called with what a user should know, until `owner` is cancelled.
    pub fn on_notice(&self, owner: CancelToken, notice: Notice) {
        let mut state = self.state();
        state.listeners.retain(|(owner, _)| !owner.is_cancelled());
        state.listeners.push((owner, notice));
    }
}

impl State {
    fn is_wrong(&self, class: &Class, form: Params) -> bool {
        self.kept.wrong.contains(&wrong_name(class, form))
    }
}

/// What a file calls a form that serves no class of its family.
fn wrong_name(class: &Class, form: Params) -> String {
    format!("{}: {}", class.family.name, (class.family.form)(form))
}
