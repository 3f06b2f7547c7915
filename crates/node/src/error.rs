//! Conversion of errors to JavaScript: the code becomes `error.code`.

use lowrank_engine::error as engine;

/// The status of a thrown error, such as `ERR_DTYPE`.
pub struct Code(pub &'static str);

impl AsRef<str> for Code {
    fn as_ref(&self) -> &str {
        self.0
    }
}

// An error of napi-rs itself, such as a wrong argument type, is a bug in the façade.
impl From<napi::Status> for Code {
    fn from(_: napi::Status) -> Self {
        Code("ERR_INTERNAL")
    }
}

pub type Error = napi::Error<Code>;
pub type Result<T> = std::result::Result<T, Error>;

pub fn to_js_error(error: engine::Error) -> Error {
    napi::Error::new(Code(error.code.as_str()), error.message)
}

/// Converts an error that napi-rs raised.
pub fn wrap_napi_error(error: napi::Error) -> Error {
    napi::Error::new(Code("ERR_INTERNAL"), error.reason.clone())
}
