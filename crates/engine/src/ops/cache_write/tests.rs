use super::{cache_write, reference::compute_reference};
use crate::error::Code;
use crate::ops::checks::{Array, contexts, read};
use crate::tape::{Tape, Tensor};
use crate::{kernels::elementwise::Function, ops::unary::Unary};

#[test]
fn rows_are_written_only_at_their_position() {
    for cx in contexts() {
        for (batch, capacity, heads, dim) in [(1, 1, 1, 1), (1, 65, 2, 8), (3, 64, 1, 5), (2, 257, 2, 64)] {
            let before = Array::random("cache", &[batch, capacity, heads, dim]);
            let cache = before.upload(&cx);
            let version = cache.storage.version();
            let mut expected = before.clone();
            for (position, count) in
                [(0, 1), (capacity / 2, capacity - capacity / 2), (capacity - 1, 1), (0, 0)]
            {
                let rows = Array::random("rows", &[batch, count, heads, dim]);
                cache_write(&cx, &cache, &rows.upload(&cx), position).unwrap();
                compute_reference(&mut expected, &rows, position);
            }
            assert_eq!(read(&cache).data, expected.data, "{}", cx.profile.label);
            assert!(cache.storage.version() > version);
        }
    }
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    let cx = &contexts()[0];
    let cache = Array::random("cache", &[2, 8, 1, 4]).upload(cx);
    let rows = Array::random("rows", &[2, 3, 1, 4]).upload(cx);
    let error = cache_write(cx, &cache, &rows, 6).unwrap_err();
    assert_eq!(error.code, Code::ShapeMismatch);
    assert_eq!(error.message, "cache_write: 3 rows at position 6 pass the end of the cache [2, 8, 1, 4]");
    let other = Array::random("rows", &[2, 3, 2, 4]).upload(cx);
    assert_eq!(cache_write(cx, &cache, &other, 0).unwrap_err().code, Code::ShapeMismatch);
    let labels = Array::indices("rows", &[2, 3, 1, 4], 9).upload(cx);
    assert_eq!(cache_write(cx, &cache, &labels, 0).unwrap_err().code, Code::Dtype);
}

#[test]
fn backward_refuses_a_cache_modified_after_saving() {
    let cx = &contexts()[0];
    let cache = Tensor::new(Array::random("cache", &[1, 4, 1, 2]).upload(cx), true);
    let tape = Tape::default();
    let y = tape.apply1(Unary(Function::Square), &[&cache]).unwrap();
    let rows = Array::random("rows", &[1, 1, 1, 2]).upload(cx);
    cache_write(cx, &cache.value(), &rows, 2).unwrap();
    let d = Array::random("d", &[1, 4, 1, 2]).upload(cx);
    assert_eq!(tape.backward(&y, Some(d)).unwrap_err().code, Code::Modified);
}
