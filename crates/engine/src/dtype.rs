//! Element types of storage.

use lowrank_cpu::quant::BlockType;

use crate::shape::Shape;

/// f32 for computation; f16, bf16 and blocks store frozen weights; i32 holds indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    F32,
    F16,
    BF16,
    I32,
    /// Blocks of elements that share scales; accepted by products by a weight and by row lookups only.
    Block(BlockType),
}

impl DType {
    /// Bytes of one element.
    ///
    /// # Panics
    /// For blocks, whose elements have no separate size.
    pub fn bytes(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::Block(kind) => unreachable!("an element of {kind} has no bytes of its own"),
        }
    }

    /// Bytes of `elements` contiguous elements; whole blocks for block types.
    pub fn byte_size(self, elements: usize) -> usize {
        match self {
            DType::Block(kind) => kind.byte_size(elements),
            plain => elements * plain.bytes(),
        }
    }

    /// Whether rows of `shape` are whole blocks; for some types the whole matrix must be.
    pub fn divides(self, shape: &Shape) -> bool {
        match self {
            DType::Block(kind) if !kind.is_divisible() => shape.size().is_multiple_of(kind.elements()),
            _ => shape.last().is_multiple_of(self.unit()),
        }
    }

    /// Whether whole blocks of a matrix are a valid matrix by themselves.
    pub fn is_divisible(self) -> bool {
        !matches!(self, DType::Block(kind) if !kind.is_divisible())
    }

    /// Elements that are stored together: a range starts and ends at a multiple.
    pub fn unit(self) -> usize {
        match self {
            DType::Block(kind) => kind.elements(),
            _ => 1,
        }
    }

    /// Whether single elements are floats.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16)
    }

    pub fn is_block(self) -> bool {
        matches!(self, DType::Block(_))
    }

    /// Whether a frozen weight may have this type.
    pub fn is_weight(self) -> bool {
        self != DType::I32
    }

    pub fn as_str(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I32 => "i32",
            DType::Block(kind) => kind.as_str(),
        }
    }

    pub fn parse(name: &str) -> Option<DType> {
        Some(match name {
            "f32" => DType::F32,
            "f16" => DType::F16,
            "bf16" => DType::BF16,
            "i32" => DType::I32,
            _ => return BlockType::parse(name).map(DType::Block),
        })
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
