//! An MPI library, opened at run time.
//!
//! Two binary interfaces cover the libraries in use. MPICH's, which Intel MPI, Cray MPICH and MVAPICH share, has integers
//! as handles (MPICH ABI Compatibility Initiative). Open MPI's has addresses of objects that the library exports, the same
//! ones in versions 4 and 5. So one binary serves all of them, and nothing is compiled on a cluster.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::ManuallyDrop;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// A failure, in words.
pub type Result<T> = std::result::Result<T, String>;

/// The most bytes of the texts that a library returns (`MPI_MAX_LIBRARY_VERSION_STRING` is 8192 or less).
const TEXT_BYTES: usize = 8192;

macro_rules! functions {
    ($($field:ident = $name:literal: ($($argument:ty),*);)*) => {
        /// The functions of the library that are used; `H` is the type of its handles.
        pub struct Functions<H> {
            $(pub $field: unsafe extern "C" fn($($argument),*) -> c_int,)*
        }

        impl<H> Functions<H> {
            fn load(library: &Library) -> Result<Self> {
                Ok(Functions {
                    $($field: {
                        // SAFETY: the MPI standard gives the function this signature.
                        let found = unsafe { library.get(concat!($name, "\0").as_bytes()) };
                        *found.map_err(|e| format!("{} is missing: {e}", $name))?
                    },)*
                })
            }
        }
    };
}

functions! {
    abort = "MPI_Abort": (H, c_int);
    allreduce = "MPI_Iallreduce": (*const c_void, *mut c_void, c_int, H, H, H, *mut H);
    alltoallv = "MPI_Ialltoallv": (*const c_void, *const c_int, *const c_int, H, *mut c_void, *const c_int, *const c_int, H, H, *mut H);
    allgatherv = "MPI_Iallgatherv": (*const c_void, c_int, H, *mut c_void, *const c_int, *const c_int, H, H, *mut H);
    finalize = "MPI_Finalize": ();
    init_thread = "MPI_Init_thread": (*mut c_int, *mut *mut *mut c_char, c_int, *mut c_int);
    initialized = "MPI_Initialized": (*mut c_int);
    library_version = "MPI_Get_library_version": (*mut c_char, *mut c_int);
    processor_name = "MPI_Get_processor_name": (*mut c_char, *mut c_int);
    rank = "MPI_Comm_rank": (H, *mut c_int);
    size = "MPI_Comm_size": (H, *mut c_int);
    split_type = "MPI_Comm_split_type": (H, c_int, c_int, H, *mut H);
    test = "MPI_Test": (*mut H, *mut c_int, *mut c_void);
}

/// The handles and constants that a binary interface fixes.
pub struct Constants<H> {
    pub world: H,
    pub bytes: H,
    pub floats: H,
    pub sum: H,
    pub no_info: H,
    /// A value for handles that a call sets.
    pub unset: H,
    /// The communicator of the ranks that share memory.
    pub shared: c_int,
    pub ignored_status: *mut c_void,
}

/// `MPI_THREAD_FUNNELED`: only the thread that initialised MPI calls it.
pub const FUNNELED: c_int = 1;

/// The interface of an open library, which stays open until the process ends: it has threads and functions that run then.
pub struct Mpi<H> {
    pub call: Functions<H>,
    pub constants: Constants<H>,
}

/// An open library of either interface.
pub enum AnyMpi {
    Mpich(Mpi<c_int>),
    OpenMpi(Mpi<*mut c_void>),
}

/// Opens the first library of `paths` that exists.
///
/// # Errors
/// The reason for each path that could not be opened; a library of another interface.
pub fn open(paths: &[String]) -> Result<(AnyMpi, String)> {
    let mut reasons = Vec::new();
    for path in paths {
        // SAFETY: a library at these names is MPI, whose initialisers are safe to run. Its plugins look for its symbols
        // among the global ones.
        match unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) } {
            Ok(library) => {
                let identified = identify(&ManuallyDrop::new(library));
                return identified.map(|mpi| (mpi, path.clone())).map_err(|e| format!("{path}: {e}"));
            }
            Err(error) => reasons.push(format!("{path}: {error}")),
        }
    }
    Err(reasons.join("; "))
}

fn identify(library: &Library) -> Result<AnyMpi> {
    let object = |name: &str| -> Result<*mut c_void> {
        // SAFETY: only the address is used.
        let found = unsafe { library.get::<*mut c_void>(format!("{name}\0").as_bytes()) };
        found.map(|symbol| symbol.into_raw()).map_err(|e| format!("{name} is missing: {e}"))
    };
    if object("ompi_mpi_comm_world").is_ok() {
        let constants = Constants {
            world: object("ompi_mpi_comm_world")?,
            bytes: object("ompi_mpi_byte")?,
            floats: object("ompi_mpi_float")?,
            sum: object("ompi_mpi_op_sum")?,
            no_info: object("ompi_mpi_info_null")?,
            unset: std::ptr::null_mut(),
            shared: 0,
            ignored_status: std::ptr::null_mut(),
        };
        return Ok(AnyMpi::OpenMpi(Mpi { call: Functions::load(library)?, constants }));
    }
    let call: Functions<c_int> = Functions::load(library)?;
    let version = read_text(call.library_version);
    // Each of these names its interface in its version.
    if !["MPICH", "Intel", "MVAPICH", "CRAY"].iter().any(|name| version.contains(name)) {
        let first = version.lines().next().unwrap_or_default();
        return Err(format!("has neither Open MPI's nor MPICH's binary interface: {first}"));
    }
    let constants = Constants {
        world: 0x4400_0000,
        bytes: 0x4c00_010d,
        floats: 0x4c00_040a,
        sum: 0x5800_0003,
        no_info: 0x1c00_0000,
        unset: 0,
        shared: 1,
        ignored_status: std::ptr::without_provenance_mut(1),
    };
    Ok(AnyMpi::Mpich(Mpi { call, constants }))
}

/// Returns the text that a function of the library writes.
pub fn read_text(call: unsafe extern "C" fn(*mut c_char, *mut c_int) -> c_int) -> String {
    let mut text = vec![0 as c_char; TEXT_BYTES + 1];
    let mut length = 0;
    // SAFETY: the library writes at most `TEXT_BYTES` bytes and a zero; one more zero ends the text in any case.
    unsafe {
        call(text.as_mut_ptr(), &mut length);
        CStr::from_ptr(text.as_ptr()).to_string_lossy().trim().to_owned()
    }
}
