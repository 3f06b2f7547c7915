use std::sync::Arc; use std::time::Instant; use std::sync::mpsc::channel;
use crate::device::{Device, Sink, cpu::Cpu};
use crate::dtype::DType;
use crate::op::run1;
use crate::tensor::{Context, Value};
fn wait(cx:&std::rc::Rc<Context>){ let (s,r)=channel(); cx.fence(Box::new(move |x|{s.send(x).unwrap()})); r.recv().unwrap().unwrap(); }
#[test]
fn bench() {
    let d: Arc<Device> = Device::start(|| Cpu::open(0)).unwrap();
    let cx = Context::new(d.profile.clone(), Sink::Thread(d.clone()));
    let r = |dims:&[usize]| -> Value { let n: usize = dims.iter().product(); cx.upload(dims, DType::F32, bytemuck::cast_slice(&crate::random::Stream::new(1).uniform(n,-1.0,1.0)).to_vec()).unwrap() };
    let time = |name:&str, bytes: usize, f: &dyn Fn()| { for _ in 0..3 { f(); } wait(&cx); let mut best=f64::MAX; for _ in 0..10 { let t=Instant::now(); f(); wait(&cx); best=best.min(t.elapsed().as_secs_f64()); } println!("{name}: {:.3} ms, {:.1} GB/s", best*1e3, bytes as f64/best/1e9); };
    let x = r(&[512,1536]); let n = 512*1536*4;
    time("dropout", 2*n, &|| { run1(&cx,&crate::ops::dropout::Dropout{p:0.1,seed:1,offset:2},&[&x]).unwrap(); });
    time("transpose", 2*n, &|| { run1(&cx,&crate::ops::permute::Permute::new(&[1,0]),&[&x]).unwrap(); });
    let h = x.reshaped([512,24,64]);
    time("heads", 2*n, &|| { run1(&cx,&crate::ops::permute::Permute::new(&[1,0,2]),&[&h]).unwrap(); });
    time("slice", n, &|| { run1(&cx,&crate::ops::slice::Slice{dim:1,start:256,end:1024},&[&x]).unwrap(); });
    time("concat", 4*n, &|| { run1(&cx,&crate::ops::concat::Concat{dim:1},&[&x,&x]).unwrap(); });
    time("to f16", n*3/2, &|| { run1(&cx,&crate::ops::cast::Cast{dtype:DType::F16},&[&x]).unwrap(); });
    time("to bf16", n*3/2, &|| { run1(&cx,&crate::ops::cast::Cast{dtype:DType::BF16},&[&x]).unwrap(); });
    let hf = run1(&cx,&crate::ops::cast::Cast{dtype:DType::BF16},&[&x]).unwrap();
    time("from bf16", n*3/2, &|| { run1(&cx,&crate::ops::cast::Cast{dtype:DType::F32},&[&hf]).unwrap(); });
    let hf = run1(&cx,&crate::ops::cast::Cast{dtype:DType::F16},&[&x]).unwrap();
    time("from f16", n*3/2, &|| { run1(&cx,&crate::ops::cast::Cast{dtype:DType::F32},&[&hf]).unwrap(); });
    time("map copy", 2*n, &|| { run1(&cx,&crate::ops::unary::Unary(crate::kernels::elementwise::Function::Neg),&[&x]).unwrap(); });
    time("full", n, &|| { crate::kernels::fill::full(&cx,[512,1536],DType::F32,1.0).unwrap(); });
    let w = r(&[49152,576]); let ids: Vec<i32> = crate::random::Stream::new(2).integers(512,49152).iter().map(|v| *v as i32).collect();
    let ids = cx.upload([512], DType::I32, bytemuck::cast_slice(&ids).to_vec()).unwrap();
    let op = crate::ops::embedding::Embedding::default();
    time("embedding", 512*576*8, &|| { run1(&cx,&op,&[&w,&ids]).unwrap(); });
    let a = r(&[16,49152]);
    let opt = crate::ops::embedding::Embedding{transposed:true,..op};
    time("embedding columns", 512*16*8, &|| { run1(&cx,&opt,&[&a,&ids]).unwrap(); });
    use crate::op::{Op,Saved};
    let back = |op: &crate::ops::embedding::Embedding, w:&Value| { let y=run1(&cx,op,&[w,&ids]).unwrap(); let s=Saved{inputs:vec![None,Some(ids.clone())],outputs:vec![None],input_specs:vec![w.spec(),ids.spec()],output_specs:vec![y.spec()]}; op.backward(&cx,&s,&[true,false],&[Some(y)]).unwrap(); };
    time("embedding backward", 49152*576*4, &|| back(&op,&w));
    time("columns backward", 49152*16*4, &|| back(&opt,&a));
}
