use super::{MaxPool, Window, reference::compute_reference};
use crate::context::Spec;
use crate::kernel::coverage::every_variant;
use crate::kernels;
use crate::op::Op;
use crate::ops::checks::{Array, check, check_non_finite};
use crate::ops::{adaptive_avg_pool, avg_pool};

/// Returns windows for the tests: kernel, stride, padding, by dimension; with and without a partial last one.
pub fn list_windows(dims: usize) -> Vec<Window> {
    let sizes = [
        ([2, 2, 2], [2, 2, 2], [0, 0, 0]),
        ([3, 3, 3], [2, 2, 2], [1, 1, 1]),
        ([3, 2, 4], [1, 3, 2], [1, 0, 2]),
        ([1, 1, 1], [2, 1, 3], [0, 0, 0]),
        ([2, 3, 2], [3, 4, 5], [1, 1, 1]),
    ];
    let take_last = |list: [usize; 3]| list[3 - dims..].to_vec();
    sizes
        .into_iter()
        .flat_map(|(k, s, p)| {
            [false, true].map(|ceil| Window {
                kernel: take_last(k),
                stride: take_last(s),
                padding: take_last(p),
                ceil,
            })
        })
        .collect()
}

/// Returns shuffled values that differ by more than the step of a finite difference.
fn draw_distinct(shape: &[usize]) -> Array {
    let size: usize = shape.iter().product();
    Array::new(shape, (0..size).map(|i| (i * 7919 % 10007) as f64 / 5000.0 - 1.0).collect())
}

fn check_pool(window: Window, x: Array) {
    let op = MaxPool(window);
    check(&op, &[x], &|x| vec![compute_reference(&op.0, &x[0])]);
}

every_variant! {
    kernels::pool::KERNELS;
    fn every_variant_equals_the_reference() {
        let window = || Window { kernel: vec![3, 2], stride: vec![2, 1], padding: vec![1, 1], ceil: false };
        check_pool(window(), draw_distinct(&[2, 7, 8]));
        let x = [Array::random("x", &[2, 7, 8])];
        for count_padding in [false, true] {
            let op = avg_pool::AvgPool { window: window(), count_padding };
            check(&op, &x, &|x| vec![avg_pool::reference::compute_reference(&op, &x[0])]);
        }
        let op = adaptive_avg_pool::AdaptiveAvgPool { out: vec![3, 5] };
        check(&op, &x, &|x| vec![adaptive_avg_pool::reference::compute_reference(&op, &x[0])]);
    }
}

#[test]
fn equals_the_reference() {
    for n in [4, 63, 64, 65, 257] {
        for window in list_windows(1) {
            check_pool(window.clone(), draw_distinct(&[2, n]));
            check_pool(window, draw_distinct(&[n, 4]));
        }
    }
    for window in list_windows(2) {
        check_pool(window.clone(), draw_distinct(&[2, 3, 7, 8]));
        check_pool(window, draw_distinct(&[5, 4]));
    }
    for window in list_windows(3) {
        check_pool(window, draw_distinct(&[2, 3, 4, 6]));
    }
}

/// The first of equal maxima gets the gradient on every device.
#[test]
fn the_first_of_equal_maxima_is_chosen() {
    use crate::ops::checks::{contexts, read};
    for cx in contexts() {
        let op = MaxPool(Window { kernel: vec![3], stride: vec![1], padding: vec![0], ceil: false });
        let x = Array::new(&[4], vec![1.0, 1.0, 1.0, 0.0]).upload(&cx);
        let outputs = crate::op::run(&cx, &op, &[&x]).unwrap();
        assert_eq!(read(&outputs[1]).data, [0.0, 1.0], "{}", cx.profile.label);
    }
}

#[test]
fn non_finite_values_equal_the_reference() {
    let x = Array::new(&[6], vec![1.0, f64::NAN, 3.0, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY]);
    for (kernel, stride) in [(2, 1), (2, 2), (3, 1), (1, 1)] {
        let op =
            MaxPool(Window { kernel: vec![kernel], stride: vec![stride], padding: vec![0], ceil: false });
        check_non_finite(&op, std::slice::from_ref(&x), &|x| vec![compute_reference(&op.0, &x[0])]);
    }
}

#[test]
fn windows_that_do_not_fit_are_refused() {
    let error = |kernel: usize, padding: usize| {
        let window = Window { kernel: vec![kernel], stride: vec![1], padding: vec![padding], ceil: false };
        MaxPool(window).outputs(&[&Spec::f32([2, 4])]).unwrap_err().message
    };
    assert_eq!(
        error(3, 2),
        "maxPool: kernel and stride are at least 1 and padding at most half the kernel, not 3, 1 and 2"
    );
    assert_eq!(
        error(7, 1),
        "maxPool: a kernel of 7 is larger than the padded input, 6 in the last dimensions of shape [2, 4]"
    );
}
