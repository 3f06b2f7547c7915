//! Reuse of pages by later buffers.

use super::memory::{FreedPages, Memory};
use super::*;

const MIB: usize = 1 << 20;

/// Fills memory with a pattern by page, which no new page has.
fn fill_pages(memory: &mut Memory, bytes: usize) {
    slice_memory(memory, bytes).iter_mut().enumerate().for_each(|(i, b)| *b = (i / 4096 % 251) as u8 + 1);
}

fn slice_memory(memory: &mut Memory, bytes: usize) -> &mut [u8] {
    let whole = Range { buffer: BufferId::next(), offset: 0, bytes: bytes as u64, dtype: DType::F32 };
    // SAFETY: `at` checks that the range is inside the buffer, which is borrowed.
    unsafe { std::slice::from_raw_parts_mut(memory.pointer_at(&whole), bytes) }
}

#[test]
fn a_new_buffer_reuses_freed_pages() {
    for [old, new] in [[MIB, 2 * MIB], [3 * MIB, MIB], [MIB, MIB], [5 * MIB, 9 * MIB]] {
        let mut freed_pages = FreedPages::default();
        let mut memory = Memory::new(old, &mut freed_pages).unwrap();
        fill_pages(&mut memory, old);
        freed_pages.put(memory);
        let mut memory = Memory::new(new, &mut freed_pages).unwrap();
        let bytes = slice_memory(&mut memory, new);
        if cfg!(target_os = "linux") {
            for i in (0..old.min(new)).step_by(4096) {
                assert_eq!(bytes[i], (i / 4096 % 251) as u8 + 1, "{old} to {new} bytes, at {i}");
            }
            assert!(bytes[old.min(new)..].iter().all(|b| *b == 0));
        }
        // All of it can be written.
        bytes.fill(7);
        assert_eq!(freed_pages.bytes(), 0);
    }
}

#[test]
fn the_smallest_sufficient_mapping_is_reused_or_else_the_largest() {
    let find_reused = |bytes: usize| {
        let mut freed_pages = FreedPages::default();
        let sizes =
            [3 * MIB, MIB, 2 * MIB, 4 * MIB].map(|bytes| Memory::new(bytes, &mut freed_pages).unwrap());
        sizes.into_iter().for_each(|memory| freed_pages.put(memory));
        drop(Memory::new(bytes, &mut freed_pages).unwrap());
        10 * MIB - freed_pages.bytes()
    };
    if cfg!(target_os = "linux") {
        assert_eq!(
            [MIB / 2, 2 * MIB, 2 * MIB + 1, 8 * MIB].map(find_reused),
            [MIB, 2 * MIB, 3 * MIB, 4 * MIB]
        );
    }
}

#[test]
fn freed_pages_are_bounded_at_a_fence_and_released_when_idle() {
    // A thread opens one processor at most.
    let run = || {
        let (_, mut cpu) = Cpu::open(1).unwrap();
        let buffers: Vec<BufferId> = (0..6).map(|_| BufferId::next()).collect();
        for (buffer, bytes) in buffers.iter().zip([64, 5 << 20, 5 << 20, 5 << 20, 5 << 20, 5 << 20]) {
            cpu.run(Command::Create { buffer: *buffer, bytes }).unwrap();
        }
        for (buffer, kept) in buffers.iter().zip([0, 5, 10, 15, 20, 25]) {
            cpu.run(Command::Destroy { buffer: *buffer }).unwrap();
            assert_eq!(cpu.freed_pages.bytes(), kept * MIB);
        }
        let (reply, _) = std::sync::mpsc::channel();
        cpu.run(Command::Fence { reply: Box::new(move |done| drop(reply.send(done))) }).unwrap();
        assert_eq!(cpu.freed_pages.bytes(), 15 * MIB);
        assert!(!cpu.idle().unwrap());
        assert_eq!(cpu.freed_pages.bytes(), 0);
    };
    std::thread::spawn(run).join().unwrap();
}
