//! Checks that every submission ran.
//!
//! Metal reports a failed command buffer as complete (gfx-rs/wgpu#9545), and its outputs keep their old values. So each
//! submission ends by moving a token between two buffers, alternately from A to B and from B to A, and clears the
//! source. If a submission does not run, the token is lost for good. Each read buffer also receives the token, so that
//! the check needs no synchronisation.
//!
//! The token must not be copied before the kernels have run. So the range that the submission wrote last is copied into
//! the same buffer first, which makes the driver wait for the last pass (on Vulkan and DX12 for all earlier work).

use crate::error::{Code, Error, Result};

/// Bytes of the proof at the end of each read buffer: the token and the number of the submission. Read buffers are
/// reused, and the number distinguishes this proof from an earlier read's.
pub const PROOF: u64 = 8;

const TOKEN: u32 = 0x5afe_c0de;
/// Submissions are numbered modulo this count.
const NUMBER_COUNT: u32 = 1024;
/// The first number; no number is 0.
const FIRST_NUMBER: u32 = 0x0100_0000;

pub struct Canary {
    /// Each buffer: the token or 0, then the copied word that waits for the kernels.
    tokens: [wgpu::Buffer; 2],
    numbers: wgpu::Buffer,
    submissions: u64,
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
            // A lost device cannot map buffers; its first use reports that.
            if let Ok(mut view) = buffer.get_mapped_range_mut(..) {
                view.copy_from_slice(bytemuck::cast_slice(words));
            }
            buffer.unmap();
            buffer
        };
        let numbers: Vec<u32> = (0..NUMBER_COUNT).map(|i| FIRST_NUMBER + i).collect();
        Canary { tokens: [buffer(&[TOKEN, 0]), buffer(&[0, 0])], numbers: buffer(&numbers), submissions: 0 }
    }

    /// Encodes the end of a submission. `written` is a location that its last kernel wrote; `reads` are its read
    /// buffers. Returns the number in their proofs.
    pub fn seal<'a>(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        written: Option<(&wgpu::Buffer, u64)>,
        reads: impl Iterator<Item = &'a wgpu::Buffer>,
    ) -> u32 {
        let [a, b] = &self.tokens;
        let (from, to) = if self.submissions.is_multiple_of(2) { (a, b) } else { (b, a) };
        if let Some((buffer, at)) = written {
            encoder.copy_buffer_to_buffer(buffer, at, to, 4, 4);
        }
        encoder.copy_buffer_to_buffer(from, 0, to, 0, 4);
        encoder.clear_buffer(from, 0, Some(4));
        let at = (self.submissions % u64::from(NUMBER_COUNT)) as u32;
        for read in reads {
            let proof = read.size() - PROOF;
            encoder.copy_buffer_to_buffer(to, 0, read, proof, 4);
            encoder.copy_buffer_to_buffer(&self.numbers, u64::from(at) * 4, read, proof + 4, 4);
        }
        self.submissions += 1;
        FIRST_NUMBER + at
    }
}

/// Checks the proof at the end of a read buffer: its submission and all earlier ones ran.
///
/// # Errors
/// `ERR_DEVICE_LOST` otherwise.
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
    fn a_proof_contains_the_token_and_the_submission_number() {
        let proof = |token: u32, number: u32| [[7; 4], token.to_le_bytes(), number.to_le_bytes()].concat();
        assert!(check(&proof(TOKEN, FIRST_NUMBER + 3), FIRST_NUMBER + 3).is_ok());
        // The token is lost; the proof is from an earlier read; nothing was written.
        for lost in [proof(0, FIRST_NUMBER + 3), proof(TOKEN, FIRST_NUMBER + 2), vec![0; 16], vec![1; 3]] {
            let error = check(&lost, FIRST_NUMBER + 3).expect_err("it is no proof");
            assert_eq!(error.code, Code::DeviceLost);
        }
    }
}
