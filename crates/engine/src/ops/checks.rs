//! The shared test body: compares an operation with its reference and with finite differences, on every device.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};

use lowrank_cpu::quant::BlockType;
use lowrank_cpu::testing::{draw_blocks, hash_values, unpack_all};

use crate::context::{Context, Spec, Value};
use crate::device::{Device, Sink, cpu::Cpu, gpu::Gpu};
use crate::dtype::DType;
use crate::op::{Backward, Gradients, Op, run};
use crate::profile::{Kind, Profile};

/// A plain array in f64; `dtype` is its storage type on a device.
#[derive(Clone, Debug)]
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
    pub dtype: DType,
}

impl Array {
    pub fn new(shape: &[usize], data: Vec<f64>) -> Array {
        assert_eq!(shape.iter().product::<usize>(), data.len());
        Array { shape: shape.to_vec(), data, dtype: DType::F32 }
    }

    pub fn from_fn(shape: &[usize], f: impl Fn(&[usize]) -> f64) -> Array {
        let size = shape.iter().product();
        let mut index = vec![0; shape.len()];
        let mut data = Vec::with_capacity(size);
        for _ in 0..size {
            data.push(f(&index));
            for d in (0..shape.len()).rev() {
                index[d] += 1;
                if index[d] < shape[d] {
                    break;
                }
                index[d] = 0;
            }
        }
        Array::new(shape, data)
    }

    /// Values in (-1, 1) from a hash of `name`, exact in f32.
    pub fn random(name: &str, shape: &[usize]) -> Array {
        Array::new(shape, hash_values(name, shape.iter().product()))
    }

    /// Integers below `n` from a hash of `name`, stored as i32.
    pub fn indices(name: &str, shape: &[usize], n: usize) -> Array {
        Array {
            dtype: DType::I32,
            ..Array::random(name, shape).map(|v| ((v + 1.0) / 2.0 * n as f64).floor())
        }
    }

    pub fn map(&self, f: impl Fn(f64) -> f64) -> Array {
        Array { data: self.data.iter().map(|v| f(*v)).collect(), ..self.clone() }
    }

    /// The array with dtype `dtype` and its values rounded to it.
    pub fn stored(&self, dtype: DType) -> Array {
        let round = |v: f64| match dtype {
            DType::F16 => half::f16::from_f64(v).to_f64(),
            DType::BF16 => half::bf16::from_f64(v).to_f64(),
            DType::F32 => v as f32 as f64,
            DType::I32 => v,
            DType::Block(_) => unreachable!("blocks are drawn"),
        };
        Array { dtype, ..self.map(round) }
    }

    pub fn bytes(&self) -> Vec<u8> {
        match self.dtype {
            DType::F32 => self.data.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect(),
            DType::I32 => self.data.iter().flat_map(|v| (*v as i32).to_le_bytes()).collect(),
            DType::F16 => self.data.iter().flat_map(|v| half::f16::from_f64(*v).to_le_bytes()).collect(),
            DType::BF16 => self.data.iter().flat_map(|v| half::bf16::from_f64(*v).to_le_bytes()).collect(),
            DType::Block(_) => unreachable!("blocks are drawn"),
        }
    }

    pub fn spec(&self) -> Spec {
        Spec { shape: self.shape[..].into(), dtype: self.dtype }
    }

    pub fn upload(&self, cx: &Rc<Context>) -> Value {
        cx.upload(&self.shape[..], self.dtype, self.bytes()).unwrap()
    }
}

/// Reads a value from its device.
pub fn read(value: &Value) -> Array {
    let (send, receive) = channel();
    value.context().read(value, Box::new(move |bytes| send.send(bytes).unwrap()));
    let bytes = receive.recv().unwrap().unwrap_or_else(|e| panic!("{e}"));
    let data = match value.dtype {
        DType::F32 => bytemuck::pod_collect_to_vec::<u8, f32>(&bytes).iter().map(|v| *v as f64).collect(),
        DType::I32 => bytemuck::pod_collect_to_vec::<u8, i32>(&bytes).iter().map(|v| *v as f64).collect(),
        DType::F16 => {
            bytemuck::pod_collect_to_vec::<u8, half::f16>(&bytes).iter().map(|v| v.to_f64()).collect()
        }
        DType::BF16 => {
            bytemuck::pod_collect_to_vec::<u8, half::bf16>(&bytes).iter().map(|v| v.to_f64()).collect()
        }
        DType::Block(_) => unreachable!("blocks are not read"),
    };
    Array { shape: value.shape.to_vec(), data, dtype: value.dtype }
}

/// The devices under test: cpu; gpu; gpu with a binding limit of 4 KiB.
pub fn contexts() -> Vec<Rc<Context>> {
    static DEVICES: OnceLock<Vec<Arc<Device>>> = OnceLock::new();
    let devices = DEVICES.get_or_init(|| {
        let mut devices = vec![Device::start(|| Cpu::open(0)).expect("cpu")];
        if std::env::var_os("LOWRANK_NO_GPU").is_some() {
            eprintln!("not run: the gpu half of this test (LOWRANK_NO_GPU is set)");
            return devices;
        }
        for limit in [None, Some(4096)] {
            let device = Device::start(move || Gpu::open_with(None, limit));
            devices
                .push(device.unwrap_or_else(|e| panic!("{e}\nInstall a driver, or set LOWRANK_NO_GPU=1.")));
        }
        devices
    });
    devices.iter().map(|d| Context::new(d.profile.clone(), Sink::Thread(d.clone()))).collect()
}

/// The gpu, and the gpu without subgroups, which cover all variants of kernels that it can run. Empty if tests have no
/// gpu.
pub fn gpu_contexts() -> Vec<Rc<Context>> {
    let Some(gpu) = contexts().into_iter().find(|cx| cx.profile.kind == Kind::Gpu) else { return Vec::new() };
    let without_subgroups = Context::new(Profile { subgroup: 0, ..gpu.profile.clone() }, gpu.sink());
    vec![gpu, without_subgroups]
}

/// Compares the result of `f` on each gpu, with and without subgroups, with the processor's.
pub fn compare_on_gpus(what: &str, f: impl Fn(&Rc<Context>) -> Vec<Array>) {
    let expected = f(&contexts()[0]);
    for cx in gpu_contexts() {
        let label = format!("{what}, subgroups of {}", cx.profile.subgroup);
        let got = f(&cx);
        assert_eq!(got.len(), expected.len(), "{label}");
        for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
            compare(&format!("{label}: {i}"), got, expected, TOLERANCE);
        }
    }
}

/// Returns the outputs of an operation, and the gradients of its f32 inputs.
pub fn run_with_gradients(cx: &Rc<Context>, op: &dyn Op, inputs: &[Array]) -> Vec<Array> {
    let values: Vec<Value> = inputs.iter().map(|x| x.upload(cx)).collect();
    let outputs = run(cx, op, &values.iter().collect::<Vec<_>>()).unwrap_or_else(|e| panic!("{op:?}: {e}"));
    let d = outputs.iter().map(|y| Some(Array::random("d", &y.shape).upload(cx))).collect();
    let needs: Vec<bool> = inputs.iter().map(|x| x.dtype == DType::F32).collect();
    let d_inputs = op
        .backward(cx, &Backward::after(op, &values, &outputs, &needs, d))
        .unwrap_or_else(|e| panic!("{op:?}: {e}"));
    outputs.iter().chain(d_inputs.iter().flatten()).map(read).collect()
}

/// The largest difference due to rounding, relative to the tensor's largest value: at most a few hundred f32 roundings
/// (6e-8 each) separate any result here from its f64 value.
pub const TOLERANCE: f64 = 1e-5;

type Reference<'a> = &'a dyn Fn(&[Array]) -> Vec<Array>;

/// Compares `op` with its reference, and its gradient with finite differences of the reference.
pub fn check(op: &dyn Op, inputs: &[Array], reference: Reference) {
    check_within(TOLERANCE, op, inputs, reference);
}

pub fn check_within(tolerance: f64, op: &dyn Op, inputs: &[Array], reference: Reference) {
    let expected = reference(inputs);
    let wanted: Vec<bool> = inputs.iter().map(|x| x.dtype == DType::F32).collect();
    let differentiable = matches!(op.gradient(), crate::op::Gradient::BackwardReads(_));
    let d_outs: Vec<Array> =
        expected.iter().enumerate().map(|(i, y)| Array::random(&format!("d_out{i}"), &y.shape)).collect();
    // Computed once, on demand, and shared by the devices.
    let differences = RefCell::new(None);
    for cx in contexts() {
        let label = format!("{op:?} on {} (binding limit {})", cx.profile.label, cx.profile.binding_limit);
        let values: Vec<Value> = inputs.iter().map(|x| x.upload(&cx)).collect();
        let refs: Vec<&Value> = values.iter().collect();
        let outputs = run(&cx, op, &refs).unwrap_or_else(|e| panic!("{label}: {e}"));
        for (y, expected) in outputs.iter().zip(&expected) {
            compare(&format!("{label}: output"), &read(y), expected, tolerance);
        }
        if !differentiable {
            continue;
        }
        let d: Gradients = d_outs.iter().map(|d| Some(d.upload(&cx))).collect();
        let backward = |needs: &[bool]| {
            op.backward(&cx, &Backward::after(op, &values, &outputs, needs, d.clone()))
                .unwrap_or_else(|e| panic!("{label}: {e}"))
        };
        let d_inputs = backward(&wanted);
        let mut differences = differences.borrow_mut();
        let differences = differences
            .get_or_insert_with(|| compute_finite_differences(inputs, &wanted, &d_outs, reference));
        for (i, samples) in differences.iter().enumerate() {
            let Some(samples) = samples else { continue };
            let d_x = d_inputs[i].as_ref().unwrap_or_else(|| panic!("{label}: no gradient of input {i}"));
            assert_eq!(d_x.shape[..], inputs[i].shape[..], "{label}: the shape of input {i}'s gradient");
            let got = read(d_x);
            let scale = got.data.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
            for (at, expected) in samples {
                let error = (got.data[*at] - expected).abs() / scale;
                assert!(
                    error <= tolerance.max(2e-5),
                    "{label}: gradient of input {i} at {at}: {} for {expected}",
                    got.data[*at]
                );
            }
        }
        // Without a request for its gradient an input gets none.
        for i in (0..inputs.len()).filter(|i| wanted[*i] && wanted.iter().filter(|a| **a).count() > 1) {
            let mut needs = wanted.clone();
            needs[i] = false;
            assert!(backward(&needs)[i].is_none(), "{label}: a gradient that nobody needs, of input {i}");
        }
    }
}

/// Returns central differences of Σ d_out · reference(x) at up to 24 elements of each input.
fn compute_finite_differences(
    inputs: &[Array],
    wanted: &[bool],
    d_outs: &[Array],
    reference: Reference,
) -> Vec<Option<Vec<(usize, f64)>>> {
    let loss = |inputs: &[Array]| -> f64 {
        reference(inputs)
            .iter()
            .zip(d_outs)
            .map(|(y, d)| y.data.iter().zip(&d.data).map(|(y, d)| y * d).sum::<f64>())
            .sum()
    };
    (0..inputs.len())
        .map(|i| {
            wanted[i].then(|| {
                let size = inputs[i].data.len();
                let positions = Array::random("places", &[24])
                    .data
                    .into_iter()
                    .map(|v| ((v + 1.0) / 2.0 * size as f64) as usize);
                let mut positions: Vec<usize> =
                    positions.chain([0, size.saturating_sub(1)]).filter(|p| *p < size).collect();
                positions.sort();
                positions.dedup();
                let mut perturbed = inputs.to_vec();
                let difference = |at: usize| {
                    let x = inputs[i].data[at];
                    let h = 1e-5 * x.abs().max(1.0);
                    perturbed[i].data[at] = x + h;
                    let up = loss(&perturbed);
                    perturbed[i].data[at] = x - h;
                    let down = loss(&perturbed);
                    perturbed[i].data[at] = x;
                    (at, (up - down) / (2.0 * h))
                };
                positions.into_iter().map(difference).collect()
            })
        })
        .collect()
}

/// Compares only the forward; NaN and infinities must be at the same positions.
pub fn check_non_finite(op: &dyn Op, inputs: &[Array], reference: Reference) {
    let expected = reference(inputs);
    for cx in contexts() {
        let values: Vec<Value> = inputs.iter().map(|x| x.upload(&cx)).collect();
        let outputs = run(&cx, op, &values.iter().collect::<Vec<_>>()).unwrap();
        for (y, expected) in outputs.iter().zip(&expected) {
            compare(&format!("{op:?} on {}", cx.profile.label), &read(y), expected, TOLERANCE);
        }
    }
}

/// Requires equal shapes, equal positions of NaN and infinities, and other values within `tolerance` of the largest;
/// i32 must be equal.
pub fn compare(what: &str, got: &Array, expected: &Array, tolerance: f64) {
    assert_eq!(got.shape, expected.shape, "{what}: shape");
    // Integers must match exactly.
    let tolerance = if got.dtype == DType::I32 { 0.0 } else { tolerance };
    let scale = expected.data.iter().filter(|v| v.is_finite()).fold(1e-6f64, |m, v| m.max(v.abs()));
    for (i, (a, b)) in got.data.iter().zip(&expected.data).enumerate() {
        let same = if b.is_finite() {
            (a - b).abs() <= tolerance * scale
        } else {
            a == b || (a.is_nan() && b.is_nan())
        };
        assert!(same, "{what}: {a} for {b} at {i} of {}", got.data.len());
    }
}

/// Returns a weight in blocks of `kind`, and the same values in f32.
pub fn upload_quantised(cx: &Rc<Context>, kind: BlockType, shape: &[usize]) -> [Value; 2] {
    let blocks = draw_blocks(kind, shape.iter().product(), 7);
    let wide = bytemuck::cast_slice(&unpack_all(kind, &blocks)).to_vec();
    [(DType::Block(kind), blocks), (DType::F32, wide)].map(|(dtype, x)| cx.upload(shape, dtype, x).unwrap())
}

/// Compares a result of `rows` rows with a weight in blocks to the result with the same weight in f32. On a processor
/// they are bit-identical, since both sum in the same order, except for one row, for which some block formats have
/// direct kernels. A GPU may split one of the sums into parts.
pub fn compare_quantised(what: &str, cx: &Context, rows: usize, got: &Value, expected: &Value) {
    let tolerance = if cx.profile.kind == Kind::Cpu && rows > 1 { 0.0 } else { TOLERANCE };
    compare(&format!("{what} on {}", cx.profile.label), &read(got), &read(expected), tolerance);
}
