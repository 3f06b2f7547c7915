//! If the driver silently drops a submission, the next read returns an error.

use super::bounds::{create_buffer, open_gpu, wait_until_idle};
use super::*;

fn launch_add(gpu: &mut Gpu, x: Range) {
    let scalars = Busy { n: x.bytes as usize / 4, rounds: 1 }.words();
    let bindings = [x].into_iter().collect();
    let launch = Launch { kernel: &BUSY, params: [0; 4], bindings, scalars, groups: 4, threads: 64, work: 1 };
    gpu.run(Command::Launch(launch)).unwrap();
}

fn read(gpu: &mut Gpu, x: Range) -> Result<Vec<u8>> {
    let (send, receive) = channel();
    gpu.run(Command::Read { from: x, reply: Box::new(move |bytes| drop(send.send(bytes))) })?;
    loop {
        if let Ok(answer) = receive.try_recv() {
            return answer;
        }
        gpu.idle()?;
    }
}

/// Returns a GPU after a few reads, so that its read buffers contain the proofs of earlier reads.
fn open_used_gpu() -> Option<(Gpu, Range)> {
    let mut gpu = open_gpu()?;
    let x = create_buffer(&mut gpu, 256);
    gpu.run(Command::Zero { to: x }).unwrap();
    for _ in 0..5 {
        launch_add(&mut gpu, x);
        assert_eq!(read(&mut gpu, x).unwrap().len(), 1024);
    }
    Some((gpu, x))
}

#[test]
fn a_dropped_submission_fails_the_next_read() {
    let Some((mut gpu, x)) = open_used_gpu() else { return };
    gpu.submitter.drops_next = true;
    launch_add(&mut gpu, x);
    gpu.submit().unwrap();
    // Later submissions run, without a read.
    for _ in 0..3 {
        launch_add(&mut gpu, x);
        gpu.submit().unwrap();
    }
    wait_until_idle(&mut gpu);
    let error = read(&mut gpu, x).unwrap_err();
    assert_eq!(error.code, Code::DeviceLost);
    assert!(error.message.contains("did not run all the work"), "{error}");
    // The error persists: the GPU's values are unreliable.
    assert_eq!(read(&mut gpu, x).unwrap_err().code, Code::DeviceLost);
}

#[test]
fn a_read_in_a_dropped_submission_fails() {
    let Some((mut gpu, x)) = open_used_gpu() else { return };
    gpu.submitter.drops_next = true;
    launch_add(&mut gpu, x);
    assert_eq!(read(&mut gpu, x).unwrap_err().code, Code::DeviceLost);
}

#[test]
fn split_reads_are_verified_over_many_submissions() {
    let Some(mut gpu) = open_gpu() else { return };
    let n = (9 << 20) / 4 + 3;
    let x = create_buffer(&mut gpu, n);
    let bytes: Vec<u8> = (0..4 * n).map(|i| (i / 4 % 251) as u8).collect();
    // More submissions than there are numbers.
    for _ in 0..1100 {
        gpu.run(Command::Zero { to: Range { bytes: 4, ..x } }).unwrap();
        gpu.submit().unwrap();
    }
    for _ in 0..3 {
        gpu.run(Command::Upload { to: x, bytes: bytes.clone() }).unwrap();
        assert!(read(&mut gpu, x).unwrap() == bytes);
    }
    wait_until_idle(&mut gpu);
}
