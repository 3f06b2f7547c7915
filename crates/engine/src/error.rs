//! The error type: a stable code for programs, and a sentence for people.

use std::fmt;

/// The stable error codes of the public API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    ShapeMismatch,
    Dtype,
    DeviceMismatch,
    Index,
    Modified,
    Aborted,
    Internal,
    NoGradient,
    Disposed,
    NoGpu,
    DeviceLost,
    OutOfMemory,
    FileNotFound,
    FileFormat,
    Write,
    NotFinite,
    Option,
}

impl Code {
    /// The public name, `ERR_…`.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::ShapeMismatch => "ERR_SHAPE_MISMATCH",
            Code::Dtype => "ERR_DTYPE",
            Code::DeviceMismatch => "ERR_DEVICE_MISMATCH",
            Code::Index => "ERR_INDEX",
            Code::Modified => "ERR_MODIFIED",
            Code::Aborted => "ERR_ABORTED",
            Code::Internal => "ERR_INTERNAL",
            Code::NoGradient => "ERR_NO_GRADIENT",
            Code::Disposed => "ERR_DISPOSED",
            Code::NoGpu => "ERR_NO_GPU",
            Code::DeviceLost => "ERR_DEVICE_LOST",
            Code::OutOfMemory => "ERR_OUT_OF_MEMORY",
            Code::FileNotFound => "ERR_FILE_NOT_FOUND",
            Code::FileFormat => "ERR_FILE_FORMAT",
            Code::Write => "ERR_WRITE",
            Code::NotFinite => "ERR_NOT_FINITE",
            Code::Option => "ERR_OPTION",
        }
    }
}

/// An error with its code. Messages name the operation and its arguments.
#[derive(Clone, Debug)]
pub struct Error {
    pub code: Code,
    pub message: String,
    confined: bool,
}

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error { code, message: message.into(), confined: code == Code::OutOfMemory }
    }

    /// Marks the error as confined (see `is_confined`).
    pub fn confine(self) -> Self {
        Error { confined: true, ..self }
    }

    /// Whether only the buffers that the failed command writes are lost, so that the device continues with other work.
    /// Always true for a shortage of memory.
    pub fn is_confined(&self) -> bool {
        self.confined
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error with a code, as an expression.
pub fn fail_code(code: Code, message: impl Into<String>) -> Error {
    Error::new(code, message)
}

/// `fail!(ShapeMismatch, "matmul: …", …)` returns early with that error.
#[macro_export]
macro_rules! fail {
    ($code:ident, $($arg:tt)*) => {
        return Err($crate::error::Error::new($crate::error::Code::$code, format!($($arg)*)))
    };
}
