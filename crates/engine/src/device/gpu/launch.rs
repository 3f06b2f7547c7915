//! Binding of a launch's ranges and encoding of its dispatches.

use smallvec::SmallVec;

use super::Gpu;
use super::buffers::COPY_SCRATCH;
use super::submit::WORK_PER_BYTE;
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernel::{Access, BufferId, Launch, Range};

/// The most bind groups that are cached.
pub const MAX_BIND_GROUPS: usize = 8192;

/// The key of a cached bind group.
#[derive(PartialEq, Eq, Hash)]
pub struct BindGroupKey {
    pipeline: u32,
    pub spans: SmallVec<[Span; 8]>,
}

/// An aligned part of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    pub buffer: BufferId,
    pub base: u64,
    bytes: u64,
}

impl Gpu {
    pub(super) fn launch(&mut self, launch: &Launch) -> Result<()> {
        if launch.groups == 0 {
            return Ok(());
        }
        let pipeline = self.pipelines.get(launch)?;
        let mut immediates: SmallVec<[u32; 32]> = SmallVec::new();
        immediates.push(launch.groups);
        let mut key = BindGroupKey { pipeline: pipeline.number, spans: SmallVec::new() };
        let mut bytes = 0;
        for (i, range) in launch.bindings.iter().enumerate() {
            let (span, at) = self.bind(launch, i, range)?;
            bytes += range.bytes;
            immediates.push(at);
            key.spans.push(span);
        }
        let writes = |i: usize| launch.kernel.bindings[i].1 != Access::Read;
        self.written = (0..key.spans.len()).rev().find(|i| writes(*i)).map(|i| key.spans[i]).or(self.written);
        immediates.extend_from_slice(&launch.scalars);
        if !self.bind_groups.contains_key(&key) {
            let group = self.create_bind_group(&pipeline.layout, &key)?;
            // Training steps repeat their bind groups; the limit bounds the cache when ranges keep changing.
            if self.bind_groups.len() >= MAX_BIND_GROUPS {
                self.bind_groups.clear();
            }
            self.bind_groups.insert(BindGroupKey { pipeline: key.pipeline, spans: key.spans.clone() }, group);
        }
        if pipeline.divisible {
            immediates.push(0);
        }
        let divides = pipeline.divisible && !self.in_trial;
        let work =
            self.submitter.correct_work(launch.kernel, launch.work.max(bytes.saturating_mul(WORK_PER_BYTE)));
        let mut first = 0;
        while first < launch.groups {
            let left = launch.groups - first;
            let count = if divides {
                self.submitter.choose_groups(compute_share(work, left, launch.groups), left)
            } else {
                left
            };
            // Whole rows of the grid, except in the last part: the next dispatch starts where this one ends.
            let x = count.min(self.limits.max_compute_workgroups_per_dimension);
            let y = if count == left { count.div_ceil(x) } else { count / x };
            let groups = left.min(x.saturating_mul(y));
            if first > 0 {
                *immediates.last_mut().expect("the number of groups is there") = first;
            }
            let pass = self.submitter.pass();
            pass.set_pipeline(&pipeline.compute);
            pass.set_bind_group(0, &self.bind_groups[&key], &[]);
            pass.set_immediates(0, bytemuck::cast_slice(&immediates));
            pass.dispatch_workgroups(x, y, 1);
            let part = compute_share(work, groups, launch.groups);
            self.submitter.count_launch(launch, groups, part);
            self.count(part)?;
            first += groups;
        }
        Ok(())
    }

    /// Returns the aligned span that contains `range`, and the range's offset in it, in elements.
    fn bind(&mut self, launch: &Launch, i: usize, range: &Range) -> Result<(Span, u32)> {
        let (name, access) = launch.kernel.bindings[i];
        if range.bytes > self.binding_limit {
            fail!(
                Internal,
                "kernel {}: {name} spans {} bytes, {} at most",
                launch.kernel.name,
                range.bytes,
                self.binding_limit
            );
        }
        // wgpu rejects a dispatch that both reads and writes a buffer, even in separate ranges.
        let conflict = access == Access::Read
            && (launch.bindings.iter().zip(launch.kernel.bindings))
                .any(|(other, (_, access))| *access != Access::Read && other.buffer == range.buffer);
        let copy;
        let range = if conflict {
            let shift = range.offset % 4;
            let buffer = self.get_scratch(COPY_SCRATCH + 1 + i, shift + range.bytes)?;
            copy = Range { buffer, offset: shift, ..*range };
            self.copy(range, &copy)?;
            &copy
        } else {
            range
        };
        let size = self.find_buffer(range)?.size();
        let alignment = u64::from(self.limits.min_storage_buffer_offset_alignment);
        let base = (range.offset / alignment * alignment).min((size - 4) / alignment * alignment);
        let end = (range.offset + range.bytes).next_multiple_of(4).clamp(base + 4, size);
        // Offsets in blocks are in bytes.
        let unit = if range.dtype.is_block() { 1 } else { range.dtype.bytes() as u64 };
        let at = (range.offset - base) / unit;
        let pairs = matches!(range.dtype, DType::F16 | DType::BF16);
        if access != Access::Read && pairs && at % 2 == 1 {
            fail!(Internal, "kernel {}: {name} is written from the middle of a pair", launch.kernel.name);
        }
        Ok((Span { buffer: range.buffer, base, bytes: end - base }, at as u32))
    }

    fn create_bind_group(
        &self,
        layout: &wgpu::BindGroupLayout,
        key: &BindGroupKey,
    ) -> Result<wgpu::BindGroup> {
        let mut entries: SmallVec<[wgpu::BindGroupEntry; 8]> = SmallVec::new();
        for (span, binding) in key.spans.iter().zip(0..) {
            let Some(buffer) = self.buffers.get(&span.buffer) else {
                fail!(Internal, "a recording names a buffer that is not there");
            };
            let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer,
                offset: span.base,
                size: wgpu::BufferSize::new(span.bytes),
            });
            entries.push(wgpu::BindGroupEntry { binding, resource });
        }
        let descriptor = wgpu::BindGroupDescriptor { label: None, layout, entries: &entries };
        Ok(self.device.create_bind_group(&descriptor))
    }
}

/// The work of `part` of `groups`.
fn compute_share(work: u64, part: u32, groups: u32) -> u64 {
    (u128::from(work) * u128::from(part) / u128::from(groups)) as u64
}
