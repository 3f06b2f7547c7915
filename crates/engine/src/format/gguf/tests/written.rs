//! GGUF files for these tests, valid or not.

/// A value of the metadata, preceded by its type.
pub fn encode_meta_u32(value: u32) -> Vec<u8> {
    [4u32.to_le_bytes(), value.to_le_bytes()].concat()
}

pub fn encode_meta_text(value: &str) -> Vec<u8> {
    [8u32.to_le_bytes().to_vec(), encode_text(value)].concat()
}

/// A list of `count` values of the type `kind`, given as bytes.
pub fn encode_meta_list(kind: u32, count: u64, values: &[u8]) -> Vec<u8> {
    [&9u32.to_le_bytes()[..], &kind.to_le_bytes(), &count.to_le_bytes(), values].concat()
}

pub fn encode_text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes(), value.as_bytes()].concat()
}

pub struct TensorSpec<'a> {
    pub name: &'a str,
    /// Innermost first, as in a file.
    pub dims: &'a [u64],
    pub kind: u32,
    pub offset: u64,
}

/// A file of version 3: its header, padding, and `data`.
pub fn encode_file(
    keys: &[(&str, Vec<u8>)],
    tensors: &[TensorSpec],
    alignment: usize,
    data: &[u8],
) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((keys.len() as u64).to_le_bytes());
    for (key, value) in keys {
        bytes.extend(encode_text(key));
        bytes.extend(value);
    }
    for tensor in tensors {
        bytes.extend(encode_text(tensor.name));
        bytes.extend((tensor.dims.len() as u32).to_le_bytes());
        tensor.dims.iter().for_each(|dim| bytes.extend(dim.to_le_bytes()));
        bytes.extend(tensor.kind.to_le_bytes());
        bytes.extend(tensor.offset.to_le_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(alignment), 0);
    bytes.extend(data);
    bytes
}
