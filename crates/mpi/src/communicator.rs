//! The collective operations on the ranks of a job. All run on the thread that initialised MPI.

use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

use crate::library::{FUNNELED, Mpi, Result, read_text};

/// A rank's position in the job.
#[derive(Clone, Debug)]
pub struct RankInfo {
    pub rank: usize,
    pub size: usize,
    /// Among the ranks of this machine.
    pub local_rank: usize,
    pub local_size: usize,
    pub host: String,
    pub library: String,
}

/// A request to end all ranks, which any thread may make.
#[derive(Clone, Default)]
pub struct AbortRequest(Arc<(AtomicBool, AtomicI32)>);

impl AbortRequest {
    pub fn request(&self, status: i32) {
        self.0.1.store(status, Ordering::Relaxed);
        self.0.0.store(true, Ordering::Release);
    }

    pub fn status(&self) -> Option<i32> {
        self.0.0.load(Ordering::Acquire).then(|| self.0.1.load(Ordering::Relaxed))
    }
}

/// Waits of up to this are polled without sleep.
const POLL_TIME: Duration = Duration::from_micros(100);
/// The longest sleep between two polls.
const LONGEST_SLEEP: Duration = Duration::from_millis(1);

/// All ranks of the job, after MPI is initialised.
pub struct Communicator<H> {
    mpi: Mpi<H>,
    pub info: RankInfo,
    abort: AbortRequest,
}

impl<H: Copy> Communicator<H> {
    /// Initialises MPI on this thread.
    pub fn new(mpi: Mpi<H>, abort: AbortRequest) -> Result<Self> {
        let (call, known) = (&mpi.call, &mpi.constants);
        let (mut begun, mut given) = (0, 0);
        let (mut rank, mut size, mut local_rank, mut local_size) = (0, 0, 0, 0);
        let mut local = known.unset;
        // SAFETY: each pointer is valid for its call, and null is allowed for the process's arguments.
        unsafe {
            check_status("MPI_Initialized", (call.initialized)(&mut begun))?;
            if begun != 0 {
                return Err("MPI is initialised already in this process".into());
            }
            let no = std::ptr::null_mut();
            check_status(
                "MPI_Init_thread",
                (call.init_thread)(no, std::ptr::null_mut(), FUNNELED, &mut given),
            )?;
            check_status("MPI_Comm_rank", (call.rank)(known.world, &mut rank))?;
            check_status("MPI_Comm_size", (call.size)(known.world, &mut size))?;
            let split = (call.split_type)(known.world, known.shared, rank, known.no_info, &mut local);
            check_status("MPI_Comm_split_type", split)?;
            check_status("MPI_Comm_rank", (call.rank)(local, &mut local_rank))?;
            check_status("MPI_Comm_size", (call.size)(local, &mut local_size))?;
        }
        if given < FUNNELED {
            return Err("the MPI library allows no threads in a process".into());
        }
        let info = RankInfo {
            rank: rank as usize,
            size: size as usize,
            local_rank: local_rank as usize,
            local_size: local_size as usize,
            host: read_text(call.processor_name),
            library: read_text(call.library_version).lines().next().unwrap_or_default().to_owned(),
        };
        Ok(Communicator { mpi, info, abort })
    }

    /// Ends MPI; all ranks call it.
    pub fn finish(self) -> Result<()> {
        // SAFETY: no request is open, since each operation waits for its own.
        check_status("MPI_Finalize", unsafe { (self.mpi.call.finalize)() })
    }

    /// Ends the processes of all ranks if that was requested. Does not return then.
    pub fn abort_if_requested(&self) {
        if let Some(status) = self.abort.status() {
            // SAFETY: this is the thread that initialised MPI.
            unsafe { (self.mpi.call.abort)(self.mpi.constants.world, status) };
            std::process::exit(status);
        }
    }

    /// Returns the bytes of every rank, in rank order.
    pub fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        let size = self.info.size;
        let lengths = self.gather_equal(&(own.len() as u64).to_le_bytes())?;
        let counts = lengths.chunks_exact(8).map(|n| u64::from_le_bytes(n.try_into().expect("8 bytes")));
        let counts: Vec<usize> = counts.map(|n| n as usize).collect();
        let spans = Spans::new(&counts)?;
        let mut all = vec![0u8; spans.total];
        let (call, known) = (&self.mpi.call, &self.mpi.constants);
        let mut request = known.unset;
        // SAFETY: the buffers live until `wait` returns and have the counts that they are described with.
        let started = unsafe {
            (call.allgatherv)(
                as_address(own),
                own.len() as c_int,
                known.bytes,
                as_address_mut(&mut all),
                spans.counts.as_ptr(),
                spans.starts.as_ptr(),
                known.bytes,
                known.world,
                &mut request,
            )
        };
        check_status("MPI_Iallgatherv", started)?;
        self.wait(request)?;
        Ok((0..size).map(|rank| all[spans.range(rank)].to_vec()).collect())
    }

    /// Sends `parts[r]` to each rank `r`, and returns what each rank sent to this one.
    pub fn exchange(&self, parts: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
        let size = self.info.size;
        if parts.len() != size {
            return Err(format!("{} parts are given for {size} ranks", parts.len()));
        }
        let lengths: Vec<u8> = parts.iter().flat_map(|part| (part.len() as u64).to_le_bytes()).collect();
        let eights = Spans::new(&vec![8; size])?;
        let mut theirs = vec![0u8; 8 * size];
        self.alltoall(&lengths, &eights, &mut theirs, &eights, self.mpi.constants.bytes)?;
        let counts = theirs.chunks_exact(8).map(|n| u64::from_le_bytes(n.try_into().expect("8 bytes")));
        let counts: Vec<usize> = counts.map(|n| n as usize).collect();
        // A byte follows each part: Open MPI 4 skips an exchange on a rank that neither sends nor receives, and its next
        // operations then meet other ones.
        let received = Spans::new(&counts.iter().map(|n| n + 1).collect::<Vec<_>>())?;
        let sent = Spans::new(&parts.iter().map(|part| part.len() + 1).collect::<Vec<_>>())?;
        let mut own = Vec::with_capacity(sent.total);
        for part in parts {
            own.extend_from_slice(part);
            own.push(0);
        }
        let mut all = vec![0u8; received.total];
        self.alltoall(&own, &sent, &mut all, &received, self.mpi.constants.bytes)?;
        let part = |rank: usize| all[received.range(rank)][..counts[rank]].to_vec();
        Ok((0..size).map(part).collect())
    }

    /// Replaces the values by their sums over all ranks, added in rank order: the same bits on all ranks and in every run.
    ///
    /// Each rank sums a part: two exchanges of (N − 1) / N of the values for N ranks.
    pub fn sum_in_order(&self, values: &mut [f32]) -> Result<()> {
        let RankInfo { rank, size, .. } = self.info;
        let floats = self.mpi.constants.floats;
        let bound = |r: usize| values.len() * r / size;
        let parts = Spans::new(&(0..size).map(|r| bound(r + 1) - bound(r)).collect::<Vec<_>>())?;
        let own = parts.range(rank).len();
        let copies = Spans::new(&vec![own; size])?;
        let mut received = vec![0f32; copies.total];
        self.alltoall(values, &parts, &mut received, &copies, floats)?;
        let (sums, others) = received.split_at_mut(own);
        for other in others.chunks_exact(own.max(1)) {
            sums.iter_mut().zip(other).for_each(|(sum, value)| *sum += value);
        }
        let (call, known) = (&self.mpi.call, &self.mpi.constants);
        let mut request = known.unset;
        // SAFETY: as in `gather`.
        let started = unsafe {
            (call.allgatherv)(
                as_address(sums),
                own as c_int,
                floats,
                as_address_mut(values),
                parts.counts.as_ptr(),
                parts.starts.as_ptr(),
                floats,
                known.world,
                &mut request,
            )
        };
        check_status("MPI_Iallgatherv", started)?;
        self.wait(request)
    }

    /// Replaces the values by their sums over all ranks, in an order that the MPI library chooses.
    pub fn sum_in_any_order(&self, values: &mut [f32]) -> Result<()> {
        let own = values.to_vec();
        let (call, known) = (&self.mpi.call, &self.mpi.constants);
        let mut request = known.unset;
        // SAFETY: as in `gather`.
        let started = unsafe {
            (call.allreduce)(
                as_address(&own),
                as_address_mut(values),
                to_c_int(values.len())?,
                known.floats,
                known.sum,
                known.world,
                &mut request,
            )
        };
        check_status("MPI_Iallreduce", started)?;
        self.wait(request)
    }

    /// Gathers values of the same number of bytes on each rank.
    fn gather_equal(&self, own: &[u8]) -> Result<Vec<u8>> {
        let spans = Spans::new(&vec![own.len(); self.info.size])?;
        let mut all = vec![0u8; spans.total];
        let copies = own.repeat(self.info.size);
        self.alltoall(&copies, &spans, &mut all, &spans, self.mpi.constants.bytes)?;
        Ok(all)
    }

    fn alltoall<T>(&self, from: &[T], sent: &Spans, to: &mut [T], received: &Spans, kind: H) -> Result<()> {
        debug_assert!(from.len() == sent.total && to.len() == received.total);
        let (call, known) = (&self.mpi.call, &self.mpi.constants);
        let mut request = known.unset;
        // SAFETY: as in `gather`.
        let started = unsafe {
            (call.alltoallv)(
                as_address(from),
                sent.counts.as_ptr(),
                sent.starts.as_ptr(),
                kind,
                as_address_mut(to),
                received.counts.as_ptr(),
                received.starts.as_ptr(),
                kind,
                known.world,
                &mut request,
            )
        };
        check_status("MPI_Ialltoallv", started)?;
        self.wait(request)
    }

    /// Waits for an operation. Other ranks may compute for minutes, and this rank's threads compute meanwhile, so the
    /// thread sleeps between polls, for a small part of the time that it has waited.
    fn wait(&self, mut request: H) -> Result<()> {
        let began = Instant::now();
        loop {
            let mut done = 0;
            // SAFETY: the request belongs to an operation that this thread has started.
            let tested =
                unsafe { (self.mpi.call.test)(&mut request, &mut done, self.mpi.constants.ignored_status) };
            check_status("MPI_Test", tested)?;
            if done != 0 {
                return Ok(());
            }
            self.abort_if_requested();
            let waited = began.elapsed();
            if waited < POLL_TIME {
                std::thread::yield_now();
            } else {
                std::thread::sleep((waited / 20).min(LONGEST_SLEEP));
            }
        }
    }
}

/// The address of empty buffers, where nothing is read or written. The address of an empty vector of bytes is 1, and so is
/// Open MPI's `MPI_IN_PLACE`.
static NOTHING: u64 = 0;

fn as_address<T>(buffer: &[T]) -> *const c_void {
    if buffer.is_empty() { (&raw const NOTHING).cast() } else { buffer.as_ptr().cast() }
}

fn as_address_mut<T>(buffer: &mut [T]) -> *mut c_void {
    if buffer.is_empty() { (&raw const NOTHING).cast_mut().cast() } else { buffer.as_mut_ptr().cast() }
}

/// The parts of a buffer, one for each rank.
struct Spans {
    counts: Vec<c_int>,
    starts: Vec<c_int>,
    total: usize,
}

impl Spans {
    fn new(counts: &[usize]) -> Result<Spans> {
        let mut total = 0;
        let mut starts = Vec::with_capacity(counts.len());
        for n in counts {
            starts.push(to_c_int(total)?);
            total += n;
        }
        to_c_int(total)?;
        let counts = counts.iter().map(|n| *n as c_int).collect();
        Ok(Spans { counts, starts, total })
    }

    fn range(&self, rank: usize) -> std::ops::Range<usize> {
        let start = self.starts[rank] as usize;
        start..start + self.counts[rank] as usize
    }
}

/// Converts a count for MPI, whose counts have 31 bits.
fn to_c_int(n: usize) -> Result<c_int> {
    c_int::try_from(n).map_err(|_| format!("one message of {n} elements is too large for MPI"))
}

/// By default the library ends all ranks at an error, so a status other than 0 is rare.
fn check_status(what: &str, status: c_int) -> Result<()> {
    if status == 0 { Ok(()) } else { Err(format!("{what} failed with status {status}")) }
}
