use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::recording::Reply;

type Bytes = std::result::Result<Vec<u8>, crate::error::Error>;

fn receivers(count: usize) -> (Vec<Reply>, Vec<Receiver<Bytes>>) {
    let made = (0..count).map(|_| {
        let (send, receive) = channel();
        let reply: Reply = Box::new(move |bytes| drop(send.send(bytes)));
        (reply, receive)
    });
    made.unzip()
}

fn doubled(bytes: &[u8]) -> Vec<u8> {
    let values: &[f32] = bytemuck::cast_slice(bytes);
    values.iter().flat_map(|x| (2.0 * x).to_le_bytes()).collect()
}

#[test]
fn answered_buckets_replace_the_gradients() {
    for cx in contexts() {
        for most in [1, 100, 1 << 20] {
            let (tensors, expected) = (parameters(&cx), parameters(&cx));
            let mut optimizer = adamw(&tensors);
            let mut other = adamw(&expected);
            // One parameter has no gradient: it gets one of zeros.
            set_gradients(&tensors, 1, &[2]);
            for (i, t) in expected.iter().enumerate() {
                let twice = gradient(i, 1).data.iter().map(|x| if i == 2 { 0.0 } else { 2.0 * x }).collect();
                t.set_grad(Some(Array::new(SHAPES[i], twice).upload(&cx)));
            }
            let sizes = optimizer.bucket_sizes(most).unwrap();
            assert!(sizes.iter().all(|size| *size <= most) && (most > 1000) == (sizes.len() == 1));
            let (replies, read) = receivers(sizes.len());
            let answers = optimizer.exchange_gradients(most, replies).unwrap();
            // The next step is recorded while the device waits.
            optimizer.step(Some(0.5), NotFinite::Latch).unwrap();
            cx.flush();
            for (answer, bucket) in answers.into_iter().zip(read) {
                answer.send(Ok(doubled(&bucket.recv().unwrap().unwrap()))).unwrap();
            }
            other.step(Some(0.5), NotFinite::Latch).unwrap();
            assert_eq!(bits(&tensors), bits(&expected), "buckets of {most}");
        }
    }
}

#[test]
fn a_bucket_without_an_answer_fails_what_depends_on_it() {
    for cx in contexts() {
        let tensors = parameters(&cx);
        let mut optimizer = adamw(&tensors);
        set_gradients(&tensors, 1, &[]);
        let (replies, _read) = receivers(1);
        let answers = optimizer.exchange_gradients(1 << 20, replies).unwrap();
        let norm = optimizer.step(None, NotFinite::Latch).unwrap();
        cx.flush();
        drop(answers);
        let (send, receive) = channel();
        cx.read(&norm, Box::new(move |bytes| drop(send.send(bytes))));
        assert!(receive.recv().unwrap().is_err());
    }
}

#[test]
fn empty_buckets_and_missing_receivers_are_refused() {
    for cx in contexts() {
        let optimizer = adamw(&parameters(&cx));
        assert!(optimizer.bucket_sizes(0).is_err_and(|e| e.code == Code::Option));
        assert!(optimizer.exchange_gradients(1, Vec::new()).is_err_and(|e| e.code == Code::Internal));
    }
}
