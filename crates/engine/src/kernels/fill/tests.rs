use super::full;
use crate::dtype::DType;
use crate::kernel::coverage::every_variant;
use crate::ops::checks::{contexts, read};

every_variant! {
    super::KERNELS;
    fn every_element_equals_the_value() {
        for cx in contexts() {
            for n in [1, 63, 64, 65, 257, 5000] {
                for dtype in [DType::F32, DType::I32, DType::F16, DType::BF16] {
                    for value in [0.0, -3.0, 1.0] {
                        let y = full(&cx, [n], dtype, value).unwrap();
                        assert_eq!(read(&y).data, vec![value; n], "{dtype}");
                    }
                }
            }
            let y = read(&full(&cx, [2, 2], DType::F32, f64::NEG_INFINITY).unwrap());
            assert_eq!((y.shape, y.data), (vec![2, 2], vec![f64::NEG_INFINITY; 4]));
            assert_eq!(read(&full(&cx, [0], DType::F32, 1.0).unwrap()).data, [0.0; 0]);
            assert!(read(&full(&cx, [3], DType::F32, f64::NAN).unwrap()).data.iter().all(|v| v.is_nan()));
        }
    }
}
