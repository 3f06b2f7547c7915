//! Decodes the instructions that this package uses.

/// An instruction, its registers by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    Configure(Address),
    Release,
    Zero(usize),
    /// The index is the stride between rows, in bytes.
    Load(usize, RowAddresses),
    Store(usize, RowAddresses),
    /// `to` += `left` · `right`.
    Multiply {
        to: usize,
        left: usize,
        right: usize,
    },
}

/// An address: a base register, by its number in encodings, and a displacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub base: usize,
    pub displacement: i64,
}

/// The addresses of rows: the first at the place, and each next one `index << scale` further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowAddresses {
    pub first: Address,
    /// `None` if all rows have the same address.
    pub index: Option<usize>,
    pub scale: u8,
}

/// The instruction at the start of `bytes`, and its length; `None` for any other instruction. Addresses relative to the
/// instruction, or without a base, are not decoded, since nothing here compiles to them.
pub fn decode(bytes: &[u8]) -> Option<(Instruction, usize)> {
    let mut bytes = Bytes { bytes, at: 0 };
    if bytes.next_byte()? != 0xc4 {
        return None;
    }
    let (first, second) = (bytes.next_byte()?, bytes.next_byte()?);
    // The high bits of the registers, opcode map 0F38; no wide operand, 128 bits.
    let high = |bit: u8| if first >> bit & 1 == 0 { 8 } else { 0 };
    let (r, x, b) = (high(7), high(6), high(5));
    if first & 0x1f != 2 || second & 0x84 != 0 || r != 0 {
        return None;
    }
    let (prefix, other) = (second & 3, (!second >> 3 & 0xf) as usize);
    let (opcode, modrm) = (bytes.next_byte()?, bytes.next_byte()?);
    let [mode, reg, rm] = [modrm >> 6, modrm >> 3 & 7, modrm & 7].map(usize::from);
    let unused = other == 0;
    let instruction = match (opcode, prefix, mode) {
        (0x49, 0, 3) if unused && reg == 0 && rm == 0 && b == 0 => Instruction::Release,
        (0x49, 0, _) if unused && mode != 3 && reg == 0 => {
            let rows = bytes.read_address(mode, rm, x, b)?;
            rows.index.is_none().then_some(Instruction::Configure(rows.first))?
        }
        (0x49, 3, 3) if unused && rm == 0 && b == 0 => Instruction::Zero(reg),
        // With and without the hint that the rows will not be reused soon.
        (0x4b, 1 | 3, 0..3) if unused && rm == 4 => {
            Instruction::Load(reg, bytes.read_address(mode, rm, x, b)?)
        }
        (0x4b, 2, 0..3) if unused && rm == 4 => Instruction::Store(reg, bytes.read_address(mode, rm, x, b)?),
        (0x5c, 2, 3) if b == 0 && other < 8 => Instruction::Multiply { to: reg, left: rm, right: other },
        _ => return None,
    };
    Some((instruction, bytes.at))
}

struct Bytes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bytes<'_> {
    fn next_byte(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at);
        self.at += 1;
        byte.copied()
    }

    fn read_address(&mut self, mode: usize, rm: usize, x: usize, b: usize) -> Option<RowAddresses> {
        let (mut base, mut index, mut scale) = (rm, None, 0);
        if rm == 4 {
            let sib = self.next_byte()?;
            let register = (sib >> 3 & 7) as usize + x;
            base = (sib & 7) as usize;
            // The stack pointer cannot be an index.
            (scale, index) = (sib >> 6, (register != 4).then_some(register));
        }
        if mode == 0 && base == 5 {
            return None;
        }
        let displacement = match mode {
            0 => 0,
            1 => self.next_byte()? as i8 as i64,
            _ => {
                let four = [self.next_byte()?, self.next_byte()?, self.next_byte()?, self.next_byte()?];
                i32::from_le_bytes(four) as i64
            }
        };
        Some(RowAddresses { first: Address { base: base + b, displacement }, index, scale })
    }
}
