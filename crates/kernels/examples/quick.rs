use kernels::bf16::Bf16;
use kernels::gemm::*;
use std::time::Instant;
fn time(mut f: impl FnMut()) -> f64 {
    f();
    let mut best = f64::MAX;
    for _ in 0..7 { let t = Instant::now(); f(); best = best.min(t.elapsed().as_secs_f64()); }
    best
}
fn main() {
    kernels::parallel::set_threads(2).unwrap();
    for a in [kernels::limit::Arithmetic::F32, kernels::limit::Arithmetic::Bf16, kernels::limit::Arithmetic::Int8] {
        println!("{a:?} {:.0}", kernels::limit::peak(a, 2).unwrap() / 1e9);
    }
    for (rows, inputs, outputs) in [(4096, 768, 3072), (4096, 3072, 768), (4096,768,768),(2048,3072,768),(3072,3072,768),(4096,3072,1536),(4096,2048,768),(1024, 768, 3072), (1024, 768, 768), (1024,3072,768), (128, 768, 3072), (128, 768, 768), (16,768,768), (1024, 384, 1536),(1024, 384, 384)] {
        let x: Vec<u32> = (0..rows*inputs/2).map(|i| (i as u32 % 97) * 0x00010001 + 0x3c003c00).collect(); let x: &[Bf16] = bytemuck::cast_slice(&x);
        let dy = vec![0u32; rows * outputs / 2]; let dy: &[Bf16] = bytemuck::cast_slice(&dy);
        let w = vec![0.01; inputs * outputs];
        let mut p = PackedWeight::default();
        let tp = time(|| p.pack(&w, inputs, outputs, true));
        let bias = vec![0.0; outputs];
        let mut y = vec![Bf16(0); rows * outputs];
        let fl = 2.0 * (rows * inputs * outputs) as f64 / 1e9;
        let t = time(|| Linear { y: &mut y, z: None, x, bias: &bias, act: None }.run(&p));
        let tg = time(|| Linear { y: &mut y, z: None, x, bias: &bias, act: Some(kernels::activation::Activation::Gelu) }.run(&p));
        let mut dx = vec![0.0; rows * inputs];
        let td = time(|| InputGradient::F32(&mut dx, Store::Add).run(dy, &p));
        let mut dw = vec![0.0; inputs * outputs]; let mut db = vec![0.0; outputs];
        let mut s = Scratch::default();
        let tw = time(|| WeightGradient { dw: &mut dw, db: &mut db, store: Store::Replace, dy, x }.run(&mut s));
        println!("{rows}x{inputs}x{outputs}: fwd {:.0} gelu {:.0} dx {:.0} dw {:.0} GF/s, pack {:.2} ms", fl / t, fl / tg, fl / td, fl / tw, tp * 1e3);
    }
}
