//! Probes a DXC by compiling a small shader as wgpu would, without a device.

use std::path::Path;

use windows::Win32::Graphics::Direct3D::Dxc::{
    CLSID_DxcCompiler, DXC_CP_UTF8, DXC_OUT_ERRORS, DXC_OUT_OBJECT, DxcBuffer, IDxcBlob, IDxcBlobUtf8,
    IDxcCompiler3, IDxcResult, IDxcVersionInfo,
};
use windows::core::{GUID, HRESULT, Interface, PCWSTR, w};

/// A kernel with the features of the engine's kernels: a buffer, workgroup memory and a barrier.
const SHADER: &str = "RWByteAddressBuffer y : register(u0);
groupshared uint shared_x[64];
[numthreads(64, 1, 1)]
void main(uint lane : SV_GroupIndex) {
  shared_x[lane] = y.Load(lane * 4);
  GroupMemoryBarrierWithGroupSync();
  y.Store(lane * 4, shared_x[lane ^ 1]);
}";

type CreateInstance =
    unsafe extern "system" fn(*const GUID, *const GUID, *mut *mut core::ffi::c_void) -> HRESULT;

/// Loads the file, compiles a shader, and returns the compiler's version.
///
/// # Errors
/// The fault of the file, as the end of a sentence.
pub fn probe(path: &Path) -> Result<String, String> {
    if !path.is_file() {
        return Err("does not exist".into());
    }
    // SAFETY: loading runs the file's start-up code, which wgpu would run next anyway.
    let library = unsafe { libloading::Library::new(path) }.map_err(|e| format!("does not load ({e})"))?;
    let result = compile(&library);
    // Never unloaded: the compiler may leave threads behind.
    std::mem::forget(library);
    result
}

fn compile(library: &libloading::Library) -> Result<String, String> {
    // SAFETY: the function has this signature in every DXC.
    let create = unsafe { library.get::<CreateInstance>(b"DxcCreateInstance\0") }
        .map_err(|_| "is no DXC (it has no DxcCreateInstance)".to_string())?;
    let mut created: Option<IDxcCompiler3> = None;
    // SAFETY: `created` has the type of the requested interface.
    unsafe { create(&CLSID_DxcCompiler, &IDxcCompiler3::IID, (&raw mut created).cast()) }
        .ok()
        .map_err(|e| format!("is too old, version 1.8.2502 or later is needed ({e})"))?;
    let compiler = created.ok_or("gives no compiler")?;
    let version = read_version(&compiler);
    let source = DxcBuffer { Ptr: SHADER.as_ptr().cast(), Size: SHADER.len(), Encoding: DXC_CP_UTF8.0 };
    let arguments: [PCWSTR; 8] =
        [w!("-E"), w!("main"), w!("-T"), w!("cs_6_0"), w!("-HV"), w!("2018"), w!("-no-warnings"), w!("-Ges")];
    let failed = |e: windows::core::Error| format!("does not compile a test shader ({e})");
    // SAFETY: the source and the arguments are valid during the call.
    let result: IDxcResult = unsafe { compiler.Compile(&source, Some(&arguments), None) }.map_err(failed)?;
    let (mut messages, mut object): (Option<IDxcBlobUtf8>, Option<IDxcBlob>) = (None, None);
    // SAFETY: each output is requested with its type.
    unsafe {
        result.GetOutput(DXC_OUT_ERRORS, &mut None, &raw mut messages).map_err(failed)?;
        // There is no object after an error, which the messages report.
        let _ = result.GetOutput(DXC_OUT_OBJECT, &mut None, &raw mut object);
    }
    validate_output(&version, &read_text(messages.as_ref()), object.as_ref().map(read_blob))
}

/// Accepts a compiler without messages that signs its output: D3D12 rejects unsigned shaders, and wgpu treats the
/// warning about the signature as an error.
fn validate_output(version: &str, messages: &str, object: Option<&[u8]>) -> Result<String, String> {
    if messages.contains("DXIL signing library") {
        return Err(format!(
            "(version {version}) cannot sign shaders without a dxil.dll; version 1.8.2502 or later is needed"
        ));
    }
    if !messages.is_empty() {
        let first = messages.lines().next().unwrap_or_default();
        return Err(format!("(version {version}) does not compile a test shader ({first})"));
    }
    // A container begins with four characters and its signature of 16 bytes.
    match object.and_then(|bytes| bytes.get(4..20)) {
        None => Err(format!("(version {version}) gives no shader")),
        Some(signature) if signature.iter().all(|byte| *byte == 0) => {
            Err(format!("(version {version}) does not sign shaders"))
        }
        Some(_) => Ok(version.into()),
    }
}

fn read_version(compiler: &IDxcCompiler3) -> String {
    let (mut major, mut minor) = (1, 0);
    // Version 1.0 lacks this interface.
    if let Ok(info) = compiler.cast::<IDxcVersionInfo>() {
        // SAFETY: both numbers are writable.
        let _ = unsafe { info.GetVersion(&mut major, &mut minor) };
    }
    format!("{major}.{minor}")
}

fn read_text(blob: Option<&IDxcBlobUtf8>) -> String {
    blob.map_or(String::new(), |blob| {
        // SAFETY: the blob owns this many bytes.
        let bytes = unsafe {
            let start: *const u8 = blob.GetStringPointer().0.cast();
            match blob.GetStringLength() {
                0 => &[],
                length => std::slice::from_raw_parts(start, length),
            }
        };
        String::from_utf8_lossy(bytes).trim().into()
    })
}

fn read_blob(blob: &IDxcBlob) -> &[u8] {
    // SAFETY: the blob owns this many bytes.
    unsafe { std::slice::from_raw_parts(blob.GetBufferPointer().cast(), blob.GetBufferSize()) }
}

#[cfg(test)]
mod tests {
    use super::validate_output;

    #[test]
    fn unsigned_and_failing_compilers_are_refused() {
        let container = |signature: u8| [b"DXBC".to_vec(), vec![signature; 16], vec![1; 8]].concat();
        assert_eq!(validate_output("1.9", "", Some(&container(7))), Ok("1.9".into()));
        let refused =
            |messages: &str, object: Option<&[u8]>| validate_output("1.7", messages, object).unwrap_err();
        assert!(refused("", Some(&container(0))).contains("does not sign"));
        assert!(refused("", None).contains("no shader"));
        let unsigned = "warning: DXIL signing library (dxil.dll,libdxil.so) not found.";
        assert!(refused(unsigned, Some(&container(0))).contains("1.8.2502"));
        assert!(refused("error: no such profile", None).contains("no such profile"));
    }
}
