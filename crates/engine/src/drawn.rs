//! Random values that the host generates and uploads in pieces, so that its memory use is bounded whatever the size.

use std::rc::Rc;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::shape::Shape;

/// Elements of a piece: whole blocks of the generator, so that pieces draw the same numbers as one fill.
const PIECE: usize = 1 << 18;

/// An f32 value whose elements `draw` generates in order, a given number per call. On a meta device nothing is drawn.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY`.
pub fn generate(
    cx: &Rc<Context>,
    shape: impl Into<Shape>,
    mut draw: impl FnMut(usize) -> Vec<f32>,
) -> Result<Value> {
    let value = cx.empty(shape, DType::F32)?;
    let pieces = if cx.is_meta() { 0 } else { value.size() };
    for start in (0..pieces).step_by(PIECE) {
        let values = draw(PIECE.min(pieces - start));
        let piece = value.sub_range(start, [values.len()]);
        cx.write(&piece, bytemuck::cast_slice(&values).to_vec());
        if values.len() == PIECE {
            cx.flush();
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use lowrank_cpu::random::Stream;

    use super::*;
    use crate::device::{Device, Sink, cpu::Cpu};

    #[test]
    fn pieces_draw_the_same_numbers_as_one_fill() {
        let device = Device::start(|| Cpu::open(1)).unwrap();
        let cx = Context::new(device.profile.clone(), Sink::Thread(device));
        for size in [0, 1, PIECE - 1, PIECE, 2 * PIECE + 3] {
            let mut stream = Stream { seed: 7, counter: 5 };
            let value = generate(&cx, [size], |n| stream.normal(n, 0.0, 1.0)).unwrap();
            let (send, receive) = channel();
            cx.read(&value, Box::new(move |bytes| send.send(bytes).unwrap()));
            let bytes = receive.recv().unwrap().unwrap();
            let whole = Stream { seed: 7, counter: 5 }.normal(size, 0.0, 1.0);
            assert!(bytes == bytemuck::cast_slice::<f32, u8>(&whole), "{size}");
        }
    }
}
