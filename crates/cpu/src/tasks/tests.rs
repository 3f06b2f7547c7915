//! Tests of threads and tasks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use super::{each_chunk, each_row, each_task, map_tasks};
use crate::threads::{Threads, count};

#[test]
fn every_task_runs_once_for_any_thread_count() {
    for count in [1, 2, 3, 8] {
        let threads = Threads::new(count).unwrap();
        for tasks in (0..70).chain([1000]) {
            for asked in [1, 2, count, 100] {
                let runs: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                threads.install(|| {
                    each_task(asked, tasks, |i| {
                        runs[i].fetch_add(1, Relaxed);
                    })
                });
                assert!(runs.iter().all(|n| n.load(Relaxed) == 1), "{count} threads, {tasks} tasks");
            }
        }
    }
}

#[test]
fn sleeping_workers_wake_up() {
    let threads = Threads::new(3).unwrap();
    for pause in [0, 1, 5] {
        std::thread::sleep(Duration::from_millis(pause));
        // Each of three tasks waits for the other two.
        let here = AtomicUsize::new(0);
        threads.install(|| {
            each_task(3, 3, |_| {
                here.fetch_add(1, SeqCst);
                while here.load(SeqCst) < 3 {
                    std::thread::yield_now();
                }
            })
        });
    }
}

#[test]
fn each_task_returns_after_all_tasks_that_have_begun() {
    let threads = Threads::new(2).unwrap();
    let done = AtomicUsize::new(0);
    threads.install(|| {
        each_task(2, 2, |_| {
            // One of them, or both, run on the owner; the other exceeds its patience.
            if std::thread::current().name() == Some("lowrank-cpu-1") {
                std::thread::sleep(Duration::from_millis(20));
            }
            done.fetch_add(1, SeqCst);
        })
    });
    assert_eq!(done.load(SeqCst), 2);
}

#[test]
fn nested_tasks_run_on_one_thread() {
    let threads = Threads::new(4).unwrap();
    let sum = AtomicUsize::new(0);
    threads.install(|| {
        assert_eq!(count(), 4);
        each_task(4, 8, |i| {
            assert_eq!(count(), 1);
            each_task(4, 10, |j| {
                sum.fetch_add(10 * i + j, Relaxed);
            });
        });
        assert_eq!(count(), 4);
    });
    assert_eq!(count(), 1);
    assert_eq!(sum.load(Relaxed), (0..80).sum::<usize>());
}

#[test]
fn a_panic_reaches_the_caller_and_no_worker_ends() {
    let threads = Threads::new(3).unwrap();
    for at in 0..20 {
        let message = catch_unwind(AssertUnwindSafe(|| {
            threads.install(|| {
                each_task(3, 20, |i| {
                    std::thread::sleep(Duration::from_micros(50));
                    assert!(i != at, "task {i}");
                })
            })
        }));
        let message = message.unwrap_err().downcast::<String>().unwrap();
        assert_eq!(*message, format!("task {at}"));
    }
    assert_eq!(threads.install(|| map_tasks(5, |i| i * i)), [0, 1, 4, 9, 16]);
}

#[test]
fn chunks_and_ranges_cover_everything_once() {
    let threads = Threads::new(2).unwrap();
    threads.install(|| {
        let mut y = vec![0; 1001];
        each_chunk(&mut y, 10, |at, y| y.iter_mut().enumerate().for_each(|(i, y)| *y += at + i));
        assert!(y.iter().enumerate().all(|(i, y)| i == *y));
        let rows: Vec<AtomicUsize> = (0..77).map(|_| AtomicUsize::new(0)).collect();
        each_row(77, 0, |r| {
            rows[r].fetch_add(1, Relaxed);
        });
        each_row(77, 8, |r| {
            rows[r].fetch_add(1, Relaxed);
        });
        assert!(rows.iter().all(|n| n.load(Relaxed) == 2));
    });
}
