//! Proof that every submission ran.
//!
//! Metal reports a command buffer that failed as done (gfx-rs/wgpu#9545), and what it should have written keeps its
//! old values. So each submission ends by moving a token between two buffers: from A to B, the next one from B to A,
//! and clears the place that it took the token from. A submission that does not run loses the token for good. Whoever
//! reads a value finds the token beside it, so that a check costs no synchronisation.
//!
//! The copies of the token must not run ahead of the kernels: the last range that the submission wrote is copied
//! first, into the same buffer, which makes the driver wait for the last pass (on Vulkan and DX12 for all before).

use crate::error::{Code, Error, Result};

/// Bytes at the end of each buffer for reads: the token, and the number of the submission that brought it. A buffer is
/// used again, and the number tells the token of this read from the one of an earlier read.
pub const PROOF: u64 = 8;

const TOKEN: u32 = 0x5afe_c0de;
/// Numbers that submissions take in turn.
const NUMBERS: u32 = 1024;
/// What the first number is, so that none is 0.
const FIRST: u32 = 0x0100_0000;

pub struct Canary {
    /// Each: the token or 0, then what was copied to wait for the kernels.
    places: [wgpu::Buffer; 2],
    numbers: wgpu::Buffer,
    sealed: u64,
}

impl Canary {
    pub fn new(device: &wgpu::Device) -> Canary {
        let buffer = |words: &[u32]| {
            let buffer = device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: words.len() as u64 * 4,
                usage: wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: true,
            });
            // A device that is lost maps nothing; that is told when it is first used.
            if let Ok(mut view) = buffer.get_mapped_range_mut(..) {
                view.copy_from_slice(bytemuck::cast_slice(words));
            }
            buffer.unmap();
            buffer
        };
        let numbers: Vec<u32> = (0..NUMBERS).map(|i| FIRST + i).collect();
        Canary { places: [buffer(&[TOKEN, 0]), buffer(&[0, 0])], numbers: buffer(&numbers), sealed: 0 }
    }

    /// Appends the end of a submission. `written` is a place that its last kernel wrote, `reads` are the buffers that
    /// bring values back. Returns the number that a proof in them has.
    pub fn seal<'a>(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        written: Option<(&wgpu::Buffer, u64)>,
        reads: impl Iterator<Item = &'a wgpu::Buffer>,
    ) -> u32 {
        let [a, b] = &self.places;
        let (from, to) = if self.sealed.is_multiple_of(2) { (a, b) } else { (b, a) };
        if let Some((buffer, at)) = written {
            encoder.copy_buffer_to_buffer(buffer, at, to, 4, 4);
        }
        encoder.copy_buffer_to_buffer(from, 0, to, 0, 4);
        encoder.clear_buffer(from, 0, Some(4));
        let at = (self.sealed % u64::from(NUMBERS)) as u32;
        for read in reads {
            let proof = read.size() - PROOF;
            encoder.copy_buffer_to_buffer(to, 0, read, proof, 4);
            encoder.copy_buffer_to_buffer(&self.numbers, u64::from(at) * 4, read, proof + 4, 4);
        }
        self.sealed += 1;
        FIRST + at
    }
}

/// Holds the last bytes of a buffer that was read to the proof that its submission and all before it ran.
///
/// # Errors
/// `ERR_DEVICE_LOST`.
pub fn check(bytes: &[u8], number: u32) -> Result<()> {
    let proof = bytes.last_chunk::<{ PROOF as usize }>().copied().unwrap_or_default();
    if proof[..4] == TOKEN.to_le_bytes() && proof[4..] == number.to_le_bytes() {
        return Ok(());
    }
    Err(Error::new(
        Code::DeviceLost,
        "the GPU did not run all the work that it was given, and its driver reported no error; values computed since \
         the last read are lost. Update the driver of the GPU, or train on the cpu",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_the_token_and_the_number_of_its_own_submission() {
        let proof = |token: u32, number: u32| [[7; 4], token.to_le_bytes(), number.to_le_bytes()].concat();
        assert!(check(&proof(TOKEN, FIRST + 3), FIRST + 3).is_ok());
        // The token was lost; the buffer has what an earlier read left there; nothing was written at all.
        for lost in [proof(0, FIRST + 3), proof(TOKEN, FIRST + 2), vec![0; 16], vec![1; 3]] {
            let error = check(&lost, FIRST + 3).expect_err("it is no proof");
            assert_eq!(error.code, Code::DeviceLost);
        }
    }
}
