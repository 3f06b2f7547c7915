use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::fail;
use crate::kernel::Params;
use crate::profile::Profile;
use crate::recording::CancelToken;
use crate::tune::bench::{Bench, Sample, Workload};
use crate::tune::tuner::{BUDGET, MAX_SUBMISSION};
use crate::tune::{
    Choices, Class, Extent, Family, Outcome, Owner, Store, Stored, Table, Trial, Tuner, Verdict, Words,
};

fn refuse_trial(_: &Profile, _: &Words, _: Extent) -> Result<Box<dyn Trial>> {
    fail!(Internal, "a simulated bench makes no problem")
}

pub static SIMULATED: Family = Family {
    name: "simulated",
    class: |words| format!("of {}", words[0]),
    describe: |params| format!("variant {}", params[0]),
    trial: refuse_trial,
    usual: Vec::new,
};

pub fn make_class(number: u32) -> Class {
    Class { family: &SIMULATED, words: [number, 0, 0, 0, 0, 0, 0, 0] }
}

fn make_variant(number: u32) -> Params {
    [number, 0, 0, 0]
}

pub fn make_variants(count: u32) -> Vec<Params> {
    (0..count).map(make_variant).collect()
}

/// A device whose clock advances by the simulated time of its variants.
#[derive(Default)]
struct SimulatedDevice {
    now: Duration,
    /// Operations per nanosecond of each variant.
    speed: HashMap<u32, f64>,
    /// Operations of the whole problem.
    whole: u64,
    wrong: Vec<u32>,
    /// The error of a variant.
    fails: HashMap<u32, Error>,
    /// Indices of submissions that are delayed.
    delayed: Vec<usize>,
    /// Each submission: its variant, load and time.
    submissions: Vec<(u32, Workload, Duration)>,
    compared: Vec<(u32, u32)>,
    /// Classes whose buffers were released.
    done: usize,
}

impl SimulatedDevice {
    fn new(speeds: &[f64]) -> SimulatedDevice {
        let speed = speeds.iter().zip(0..).map(|(speed, variant)| (variant, *speed)).collect();
        SimulatedDevice { speed, whole: 1 << 32, ..SimulatedDevice::default() }
    }
}

impl Bench for SimulatedDevice {
    fn now(&self) -> Duration {
        self.now
    }

    fn outputs_agree(&mut self, _: &Class, [first, other]: [Params; 2]) -> Result<bool> {
        self.compared.push((first[0], other[0]));
        self.now += Duration::from_micros(300);
        match self.fails.get(&other[0]) {
            Some(error) => Err(error.clone()),
            None => Ok(!self.wrong.contains(&other[0])),
        }
    }

    fn measure(&mut self, _: &Class, variant: Params, load: Workload) -> Result<Sample> {
        let work = load.work.min(self.whole);
        // A submission has a fixed cost.
        let nanoseconds = 5_000.0 + work as f64 / self.speed[&variant[0]] * f64::from(load.repeats);
        let mut took = Duration::from_nanos(nanoseconds as u64);
        if self.delayed.contains(&self.submissions.len()) {
            took += Duration::from_millis(20);
        }
        self.now += took;
        self.submissions.push((variant[0], load, took));
        Ok(Sample { took, work })
    }

    fn release(&mut self) -> Result<()> {
        self.done += 1;
        Ok(())
    }
}

/// A table that measures during runs, and its messages.
fn make_table() -> (Table, Arc<Mutex<Vec<String>>>) {
    let table = Table::new("a GPU", true, None);
    let notices = Arc::new(Mutex::new(Vec::new()));
    let into = notices.clone();
    table.on_notice(CancelToken::default(), Arc::new(move |text| into.lock().unwrap().push(text.into())));
    (table, notices)
}

/// Makes all submissions that are due.
fn run(tuner: &mut Tuner, bench: &mut SimulatedDevice, table: &Table) {
    while tuner.step(bench, table).unwrap() {}
}

/// The index chosen for a class of three variants.
fn choose_index(table: &Table, number: u32, of: u32) -> usize {
    table.choose(make_class(number), make_variants(of).into_iter())
}

#[test]
fn the_fastest_variant_is_found_and_used() {
    for (speeds, fastest) in
        [([5e3, 9e3, 7e3], 1), ([9e3, 5e3, 7e3], 0), ([1.0, 1.1, 5.0], 2), ([40.0, 30.0, 900.0], 2)]
    {
        // Also a problem so small that it is timed many times.
        for whole in [1 << 32, 100_000] {
            let (table, notices) = make_table();
            let mut bench = SimulatedDevice { whole, ..SimulatedDevice::new(&speeds) };
            assert_eq!(choose_index(&table, 1, 3), 0, "nothing is known yet");
            run(&mut Tuner::default(), &mut bench, &table);
            assert_eq!(choose_index(&table, 1, 3), fastest, "{speeds:?} of {whole}: {:?}", bench.submissions);
            assert_eq!(bench.compared, [(0, 1), (0, 2)]);
            assert_eq!(bench.done, 1);
            assert!(notices.lock().unwrap().is_empty());
        }
    }
}

#[test]
fn an_equally_fast_variant_does_not_replace_the_default() {
    let (table, _) = make_table();
    let mut bench = SimulatedDevice::new(&[1000.0, 1010.0]);
    choose_index(&table, 1, 2);
    run(&mut Tuner::default(), &mut bench, &table);
    assert_eq!(choose_index(&table, 1, 2), 0);
}

#[test]
fn a_variant_is_not_chosen_for_a_problem_that_lacks_it() {
    let (table, _) = make_table();
    let mut bench = SimulatedDevice::new(&[1.0, 2.0, 3.0]);
    choose_index(&table, 1, 3);
    run(&mut Tuner::default(), &mut bench, &table);
    assert_eq!(table.choose(make_class(1), [make_variant(1), make_variant(2)].into_iter()), 1);
    assert_eq!(table.choose(make_class(1), [make_variant(1), make_variant(0)].into_iter()), 0);
}

#[test]
fn a_wrong_variant_is_never_used_and_reported_once() {
    let (table, notices) = make_table();
    let mut tuner = Tuner::default();
    // The wrong variant would be the fastest.
    let mut bench = SimulatedDevice { wrong: vec![1], ..SimulatedDevice::new(&[5.0, 50.0, 6.0]) };
    for number in 1..4 {
        choose_index(&table, number, 3);
    }
    run(&mut tuner, &mut bench, &table);
    for number in 1..4 {
        assert_eq!(choose_index(&table, number, 3), 2);
    }
    assert!(bench.submissions.iter().all(|(variant, ..)| *variant != 1), "a wrong variant is not timed");
    assert_eq!(bench.compared.iter().filter(|(_, other)| *other == 1).count(), 1, "nor compared again");
    let notices = notices.lock().unwrap();
    assert_eq!(notices.len(), 1, "{notices:?}");
    for part in ["a GPU", "variant 1 of simulated of 1", "other numbers than variant 0", "is not used"] {
        assert!(notices[0].contains(part), "{notices:?}");
    }
}

#[test]
fn a_variant_found_wrong_is_withdrawn_from_earlier_classes() {
    let (table, _) = make_table();
    let mut tuner = Tuner::default();
    let mut bench = SimulatedDevice::new(&[5.0, 50.0]);
    choose_index(&table, 1, 2);
    run(&mut tuner, &mut bench, &table);
    assert_eq!(choose_index(&table, 1, 2), 1);
    bench.wrong = vec![1];
    choose_index(&table, 2, 2);
    run(&mut tuner, &mut bench, &table);
    assert_eq!((choose_index(&table, 1, 2), choose_index(&table, 2, 2)), (0, 0));
}

#[test]
fn a_wrong_variant_stays_excluded_in_later_processes() {
    let folder = super::store::make_folder("wrong");
    let open_table = || Table::new("a GPU", true, Some(Store::in_folder(&folder, make_owner())));
    let mut bench = SimulatedDevice::new(&[5.0, 50.0, 6.0]);
    let first = open_table();
    choose_index(&first, 1, 3);
    run(&mut Tuner::default(), &mut bench, &first);
    assert_eq!(choose_index(&first, 1, 3), 1);
    // Right for the first problem and wrong for the second; reported when the first result is already in the file.
    bench.wrong = vec![1];
    choose_index(&first, 2, 3);
    run(&mut Tuner::default(), &mut bench, &first);

    let second = open_table();
    let mut bench = SimulatedDevice::new(&[5.0, 50.0, 6.0]);
    assert_eq!((choose_index(&second, 1, 3), choose_index(&second, 2, 3)), (0, 2));
    run(&mut Tuner::default(), &mut bench, &second);
    assert_eq!((choose_index(&second, 1, 3), choose_index(&second, 2, 3)), (2, 2));
    assert!(bench.compared.iter().all(|(_, other)| *other != 1));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_variant_that_the_device_refuses_is_excluded() {
    let (table, notices) = make_table();
    let refused = Error::new(Code::Internal, "no such shader");
    let mut bench =
        SimulatedDevice { fails: HashMap::from([(1, refused)]), ..SimulatedDevice::new(&[5.0, 50.0, 6.0]) };
    table.request([(make_class(1), make_variants(3))]);
    run(&mut Tuner::default(), &mut bench, &table);
    let (outcomes, _) = table.wait(Duration::ZERO);
    assert_eq!(outcomes[0].variants[1].verdict, Verdict::Refused("no such shader".into()));
    assert_eq!(choose_index(&table, 1, 3), 2);
    assert!(notices.lock().unwrap().is_empty());
}

#[test]
fn trials_and_their_submissions_keep_within_the_time_limits() {
    let (table, _) = make_table();
    let mut tuner = Tuner::default();
    // One variant is disproportionately slow, and the GPU is a weak one.
    let mut bench = SimulatedDevice::new(&[60.0, 0.05, 80.0, 70.0]);
    for number in 0..500 {
        choose_index(&table, number, 4);
    }
    run(&mut tuner, &mut bench, &table);
    assert!(bench.now <= BUDGET, "{:?}", bench.now);
    assert!(bench.now > BUDGET * 9 / 10, "time is left: {:?}", bench.now);
    let longest = bench.submissions.iter().max_by_key(|(.., took)| *took).unwrap();
    assert!(longest.2 <= MAX_SUBMISSION, "{longest:?}");
    // Results so far are used; the rest keeps its default, and nothing waits.
    assert_eq!(choose_index(&table, 0, 4), 2);
    assert_eq!(choose_index(&table, 499, 4), 0);
    let before = bench.submissions.len();
    choose_index(&table, 1000, 4);
    run(&mut tuner, &mut bench, &table);
    assert_eq!(bench.submissions.len(), before);
    // An explicit request has its own limit.
    table.request([(make_class(2000), make_variants(4))]);
    run(&mut tuner, &mut bench, &table);
    assert_eq!(choose_index(&table, 2000, 4), 2);
}

#[test]
fn a_disproportionately_slow_variant_is_not_timed_in_full() {
    let (table, _) = make_table();
    let mut bench = SimulatedDevice::new(&[60.0, 0.05]);
    table.request([(make_class(1), make_variants(2))]);
    run(&mut Tuner::default(), &mut bench, &table);
    let (outcomes, _) = table.wait(Duration::ZERO);
    assert_eq!(outcomes[0].variants[1].verdict, Verdict::Slow);
    let slow: Vec<_> = bench.submissions.iter().filter(|(variant, ..)| *variant == 1).collect();
    assert_eq!(slow.len(), 3, "{slow:?}");
}

#[test]
fn delayed_submissions_do_not_change_the_choice() {
    // One submission while the work is raised, two probes, and one of three rounds of each variant.
    for delayed in [vec![0], vec![2], vec![2, 3], vec![5], vec![6], vec![5, 8], vec![6, 7]] {
        let (table, _) = make_table();
        let mut bench = SimulatedDevice { delayed: delayed.clone(), ..SimulatedDevice::new(&[60.0, 80.0]) };
        choose_index(&table, 1, 2);
        run(&mut Tuner::default(), &mut bench, &table);
        assert_eq!(choose_index(&table, 1, 2), 1, "{delayed:?}: {:?}", bench.submissions);
    }
}

#[test]
fn a_class_that_cannot_be_measured_keeps_its_default() {
    for (code, closes) in [(Code::OutOfMemory, true), (Code::Option, false)] {
        let (table, _) = make_table();
        let error = Error::new(code, "no");
        let mut bench =
            SimulatedDevice { fails: HashMap::from([(1, error)]), ..SimulatedDevice::new(&[5.0, 50.0]) };
        choose_index(&table, 1, 2);
        run(&mut Tuner::default(), &mut bench, &table);
        assert_eq!(choose_index(&table, 1, 2), 0);
        assert_eq!(bench.done, 1, "its buffers are freed once");
        // Short memory belongs to the run.
        bench.fails.clear();
        choose_index(&table, 2, 2);
        run(&mut Tuner::default(), &mut bench, &table);
        assert_eq!(choose_index(&table, 2, 2), if closes { 0 } else { 1 });
    }
    let (table, _) = make_table();
    let lost = Error::new(Code::DeviceLost, "gone");
    let mut bench =
        SimulatedDevice { fails: HashMap::from([(1, lost)]), ..SimulatedDevice::new(&[5.0, 50.0]) };
    choose_index(&table, 1, 2);
    let mut tuner = Tuner::default();
    let ended = RefCell::new(None);
    while ended.borrow().is_none() {
        match tuner.step(&mut bench, &table) {
            Ok(more) => assert!(more),
            Err(error) => *ended.borrow_mut() = Some(error.code),
        }
    }
    assert_eq!(ended.into_inner(), Some(Code::DeviceLost));
}

#[test]
fn without_background_tuning_only_requested_classes_are_measured() {
    let table = Table::new("a GPU in software", false, None);
    let mut bench = SimulatedDevice::new(&[5.0, 50.0]);
    choose_index(&table, 1, 2);
    run(&mut Tuner::default(), &mut bench, &table);
    assert!(bench.submissions.is_empty());
    table.request([(make_class(1), make_variants(2))]);
    run(&mut Tuner::default(), &mut bench, &table);
    assert_eq!(choose_index(&table, 1, 2), 1);
}

fn make_owner() -> Owner {
    Owner { adapter: "a GPU".into(), driver: "1.0".into(), package: "0.1.0".into() }
}

#[test]
fn stored_results_serve_the_next_process_without_trials() {
    let folder = super::store::make_folder("next");
    let store = || Some(Store::in_folder(&folder, make_owner()));
    let first = Table::new("a GPU", true, store());
    choose_index(&first, 1, 3);
    choose_index(&first, 2, 3);
    run(&mut Tuner::default(), &mut SimulatedDevice::new(&[1.0, 2.0, 9.0]), &first);
    let kept = Choices::from(
        [("simulated of 1", "variant 2"), ("simulated of 2", "variant 2")].map(|(c, f)| (c.into(), f.into())),
    );
    assert_eq!(store().unwrap().read().variants, kept);

    let second = Table::new("a GPU", true, store());
    let mut bench = SimulatedDevice::new(&[1.0, 2.0, 9.0]);
    assert_eq!(choose_index(&second, 1, 3), 2);
    // A stored variant that this problem does not have, or that no package knows, is ignored.
    store().unwrap().add(&Choices::from([("simulated of 3".into(), "variant 77".into())]).into());
    let third = Table::new("a GPU", true, store());
    assert_eq!((choose_index(&third, 2, 2), choose_index(&third, 3, 3)), (0, 0));
    run(&mut Tuner::default(), &mut bench, &second);
    assert!(bench.submissions.is_empty(), "known classes are not tried");
    run(&mut Tuner::default(), &mut bench, &third);
    assert_eq!((choose_index(&third, 2, 2), choose_index(&third, 3, 3)), (1, 2));

    // Without tuning, nothing is read.
    assert_eq!(choose_index(&Table::new("a GPU in software", false, store()), 1, 3), 0);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn keep_stores_the_results_of_an_unfinished_queue() {
    let folder = super::store::make_folder("early");
    let store = Store::in_folder(&folder, make_owner());
    let table = Table::new("a GPU", true, Some(store.clone()));
    for number in 1..100 {
        choose_index(&table, number, 2);
    }
    let (mut tuner, mut bench) = (Tuner::default(), SimulatedDevice::new(&[1.0, 2.0]));
    while bench.done < 2 {
        tuner.step(&mut bench, &table).unwrap();
    }
    assert_eq!(store.read(), Stored::default());
    table.save();
    assert_eq!(store.read().variants.len(), 2);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn an_outcome_lists_every_variant_in_order() {
    let (table, _) = make_table();
    let mut bench = SimulatedDevice { wrong: vec![2], ..SimulatedDevice::new(&[5.0, 6.0, 7.0]) };
    table.request([(make_class(1), make_variants(3))]);
    run(&mut Tuner::default(), &mut bench, &table);
    let (outcomes, failures) = table.wait(Duration::ZERO);
    let [Outcome { variants, chosen, work, .. }] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert_eq!(*chosen, make_variant(1));
    assert_eq!(variants.iter().map(|t| t.variant[0]).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(variants[2].verdict, Verdict::Wrong);
    assert!(variants[2].took.is_none());
    // The time of one run, at the reported work.
    let took = variants[1].took.unwrap().as_nanos() as f64;
    assert!((took / (*work as f64 / 6.0) - 1.0).abs() < 0.1, "{took} of {work}");
    assert!(failures.is_empty());
}
