//! Each kernel beside what the processor can do at most: `cargo bench -p kernels`.
//!
//! Products are reported in operations a second (criterion's elements), after a line with the measured limits;
//! passes over memory in bytes a second, beside a plain copy.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kernels::activation::{self, Activation};
use kernels::attention::packed::{self, Gradients, InputGradients, Inputs, Mask, Queries, Sequences, Spec};
use kernels::attention::{self, Layout, Saved, bf16, first};
use kernels::bf16::{Bf16, Element};
use kernels::gemm::{
    InputGradient, Int8Weight, Linear, NarrowWeight, PackedWeight, QuantizedRows, Scratch, Store, WeightGradient,
    Width, linear, linear_input_gradient, linear_weight_gradient, quantize_rows,
};
use kernels::limit::{Arithmetic, peak};
use kernels::norm::{GradientOf, LayerNorm, NormOutputs, NormSaved, layer_norm, layer_norm_backward};
use kernels::optimizer::{AdamW, Tensor, adamw};
use std::hint::black_box;

/// Rows, inputs, outputs: DistilBERT's layers over a batch, a few texts and one short text.
const SHAPES: [[usize; 3]; 5] =
    [[4096, 768, 3072], [4096, 3072, 768], [1024, 768, 768], [128, 768, 3072], [1024, 384, 1536]];

fn floats(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919) % 1000) as f32 / 1000.0 - 0.5).collect()
}

/// bf16 values on a word boundary.
fn halves(n: usize) -> Vec<u32> {
    let mut words = vec![0u32; n.div_ceil(2)];
    let values: &mut [Bf16] = bytemuck::cast_slice_mut(&mut words);
    values.iter_mut().zip(floats(n)).for_each(|(h, v)| *h = Bf16::narrow(v));
    words
}

fn limits(_: &mut Criterion) {
    let threads = kernels::parallel::threads();
    for arithmetic in [Arithmetic::F32, Arithmetic::Bf16, Arithmetic::Int8] {
        if let Some(found) = peak(arithmetic, threads) {
            println!("limit, {threads} threads, {arithmetic:?}: {:.0} Gelem/s", found / 1e9);
        }
    }
}

fn products_f32(c: &mut Criterion) {
    let mut group = c.benchmark_group("f32");
    for [rows, inputs, outputs] in SHAPES {
        let (x, w, dy) = (floats(rows * inputs), floats(inputs * outputs), floats(rows * outputs));
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        let shape = format!("{rows}x{inputs}x{outputs}");
        group.throughput(Throughput::Elements((2 * rows * inputs * outputs) as u64));
        group.bench_function(BenchmarkId::new("linear", &shape), |b| {
            b.iter(|| linear(&mut y, &x, &w, rows, inputs, outputs));
        });
        group.bench_function(BenchmarkId::new("input gradient", &shape), |b| {
            b.iter(|| linear_input_gradient(&mut dx, Store::Replace, &dy, &w, rows, inputs, outputs));
        });
        group.bench_function(BenchmarkId::new("weight gradient", &shape), |b| {
            b.iter(|| linear_weight_gradient(&mut dw, Store::Replace, &dy, &x, rows, inputs, outputs));
        });
    }
}

/// SmolLM2's layers, for one text, sixteen and a prompt: f32 arithmetic, so beside the f32 limit; one row reads memory only.
fn products_narrow(c: &mut Criterion) {
    let mut group = c.benchmark_group("narrow");
    for [inputs, outputs] in [[576, 960], [576, 3072], [1536, 576], [576, 49152]] {
        let w = floats(inputs * outputs);
        for width in [Width::Int8, Width::Bf16] {
            let packed = NarrowWeight::pack(&w, inputs, outputs, width);
            for rows in [1, 16, 512] {
                if rows * outputs > 1 << 24 {
                    continue;
                }
                let (x, mut y) = (floats(rows * inputs), vec![0.0; rows * outputs]);
                group.throughput(Throughput::Elements((2 * rows * inputs * outputs) as u64));
                let name = format!("{width:?} {rows}x{inputs}x{outputs}");
                group.bench_function(name, |b| b.iter(|| packed.run(&mut y, &x, &[])));
            }
        }
    }
}

fn products_low_precision(c: &mut Criterion) {
    if !(kernels::has_bf16_products() && kernels::has_int8_products()) {
        println!("skipped: this processor has no AVX-512 BF16 and VNNI");
        return;
    }
    let mut group = c.benchmark_group("packed");
    for [rows, inputs, outputs] in SHAPES {
        let (x_words, dy_words, w) = (halves(rows * inputs), halves(rows * outputs), floats(inputs * outputs));
        let (x, dy): (&[Bf16], &[Bf16]) = (bytemuck::cast_slice(&x_words), bytemuck::cast_slice(&dy_words));
        let (bias, mut y) = (vec![0.0; outputs], vec![Bf16(0); rows * outputs]);
        let (mut dx, mut dw, mut db) = (floats(rows * inputs), w.clone(), vec![0.0; outputs]);
        let mut packed = PackedWeight::default();
        packed.pack(&w, inputs, outputs, true);
        let (units, scales) = quantize_rows(&w, inputs);
        let (int8, mut quantized, mut scratch) =
            (Int8Weight::new(&units, scales, inputs), QuantizedRows::default(), Scratch::default());
        let shape = format!("{rows}x{inputs}x{outputs}");
        group.throughput(Throughput::Elements((2 * rows * inputs * outputs) as u64));
        for (name, act) in [("bf16 linear", None), ("bf16 linear, gelu", Some(Activation::Gelu))] {
            group.bench_function(BenchmarkId::new(name, &shape), |b| {
                b.iter(|| Linear { y: &mut y, z: None, x, bias: &bias, act }.run(&packed));
            });
        }
        group.bench_function(BenchmarkId::new("bf16 input gradient", &shape), |b| {
            b.iter(|| InputGradient::F32(&mut dx, Store::Add).run(dy, &packed));
        });
        group.bench_function(BenchmarkId::new("bf16 weight gradient", &shape), |b| {
            let store = Store::Replace;
            b.iter(|| WeightGradient { dw: &mut dw, db: &mut db, outputs, store, dy, x }.run(&mut scratch));
        });
        group.bench_function(BenchmarkId::new("int8 linear", &shape), |b| {
            b.iter(|| Linear { y: &mut y, z: None, x, bias: &bias, act: None }.run_int8(&int8, &mut quantized));
        });
        group.bench_function(BenchmarkId::new("packing", &shape), |b| {
            b.iter(|| packed.pack(&w, inputs, outputs, true));
        });
    }
}

fn attentions(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention");
    for (sequences, length) in [(8, 512), (32, 128)] {
        let offsets: Vec<usize> = (0..=sequences).map(|i| i * length).collect();
        let layout = Layout::new(&offsets, 12, 64);
        let (tokens, width) = (sequences * length, 768);
        let (qkv, d_out) = (floats(tokens * 3 * width), floats(tokens * width));
        let (mut out, mut sums, mut d_qkv) = (d_out.clone(), vec![0.0; 12 * tokens], qkv.clone());
        let shape = format!("{sequences}x{length}");
        let operations = (4 * tokens * length * width) as u64;
        group.throughput(Throughput::Elements(operations));
        group.bench_function(BenchmarkId::new("f32", &shape), |b| {
            b.iter(|| attention::bidirectional(&mut out, &mut sums, &qkv, layout));
        });
        let saved = Saved { qkv: &qkv, out: &out, log_sums: &sums };
        group.throughput(Throughput::Elements(operations * 5 / 2));
        group.bench_function(BenchmarkId::new("f32 backward", &shape), |b| {
            b.iter(|| attention::bidirectional_backward(&mut d_qkv, &d_out, saved, layout));
        });
        if !kernels::has_bf16_products() {
            continue;
        }
        let (qkv_words, d_words) = (halves(tokens * 3 * width), halves(tokens * width));
        let (qkv, d_out): (&[Bf16], &[Bf16]) = (bytemuck::cast_slice(&qkv_words), bytemuck::cast_slice(&d_words));
        let (mut out, mut d_qkv) = (d_out.to_vec(), qkv.to_vec());
        group.throughput(Throughput::Elements(operations));
        group.bench_function(BenchmarkId::new("bf16", &shape), |b| {
            b.iter(|| bf16::bidirectional(&mut out, &mut sums, qkv, layout));
        });
        let saved = bf16::Saved { qkv, out: &out, log_sums: &sums };
        group.throughput(Throughput::Elements(operations * 5 / 2));
        group.bench_function(BenchmarkId::new("bf16 backward", &shape), |b| {
            b.iter(|| bf16::bidirectional_backward(&mut d_qkv, d_out, saved, layout));
        });
        let (q, kv) = (floats(sequences * width), floats(tokens * 2 * width));
        let mut one = q.clone();
        group.throughput(Throughput::Bytes((8 * tokens * width) as u64));
        group.bench_function(BenchmarkId::new("first token, f32", &shape), |b| {
            b.iter(|| first::attend(&mut one, &mut sums, &q, &kv, layout));
        });
    }
}

/// SmolLM2's and Qwen3-0.6B's heads over one text, and one prompt of 300 tokens with 16 responses of 60.
fn attentions_of_decoders(c: &mut Criterion) {
    let mut group = c.benchmark_group("causal attention");
    for (heads, key_heads, head_dim, length) in [(9, 3, 64, 2048), (16, 8, 128, 512)] {
        let pairs = (length * (length + 1) / 2) as u64;
        let name = format!("{heads}/{key_heads}x{head_dim}, {length}");
        causal(&mut group, &name, &Sequences::new(&[0, length]), [heads, key_heads, head_dim], pairs);
    }
    let offsets: Vec<usize> = std::iter::once(0).chain((0..=16).map(|i| 300 + 60 * i)).collect();
    let parents: Vec<Option<usize>> = (0..17).map(|i| (i > 0).then_some(0)).collect();
    let pairs = (300 * 301 / 2 + 16 * (60 * 300 + 60 * 61 / 2)) as u64;
    causal(&mut group, "shared 300 + 16x60", &Sequences::with_parents(&offsets, &parents), [9, 3, 64], pairs);
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

/// Both ways over sequences in which queries see `pairs` keys in all.
fn causal(group: &mut Group, name: &str, sequences: &Sequences, shape: [usize; 3], pairs: u64) {
    let ([heads, key_heads, head_dim], mask, queries) = (shape, Mask::Causal, Queries::All);
    let scale = 1.0 / (head_dim as f32).sqrt();
    let spec = Spec { heads, key_heads, head_dim, scale, mask, soft_cap: None, bias: None, queries };
    let (tokens, width) = (sequences.tokens(), (heads + 2 * key_heads) * head_dim);
    let (qkv, d_out) = (floats(tokens * width), floats(tokens * heads * head_dim));
    let (mut out, mut sums, mut d_qkv) = (d_out.clone(), vec![0.0; heads * tokens], qkv.clone());
    let inputs = Inputs::Together(&qkv);
    group.throughput(Throughput::Elements(4 * pairs * (heads * head_dim) as u64));
    group.bench_function(BenchmarkId::new("f32", name), |b| {
        b.iter(|| packed::forward(&mut out, &mut sums, inputs, sequences, &spec));
    });
    let saved = packed::Saved { inputs, out: &out, log_sums: &sums };
    group.throughput(Throughput::Elements(10 * pairs * (heads * head_dim) as u64));
    group.bench_function(BenchmarkId::new("f32 backward", name), |b| {
        b.iter(|| {
            let inputs = InputGradients::Together(&mut d_qkv);
            packed::backward(Gradients { inputs, bias: None }, &d_out, saved, sequences, &spec);
        });
    });
}

/// The factors of an adapter over one layer of SmolLM2, both ways.
fn adapters(c: &mut Criterion) {
    let mut group = c.benchmark_group("adapter");
    let (rows, inputs, outputs) = (2048, 576, 1536);
    let (x, dy) = (floats(rows * inputs), floats(rows * outputs));
    let narrow = NarrowWeight::pack(&floats(inputs * outputs), inputs, outputs, Width::Bf16);
    let (mut dx, mut scratch) = (x.clone(), Scratch::default());
    group.throughput(Throughput::Elements((2 * rows * inputs * outputs) as u64));
    group.bench_function("input gradient of the frozen layer", |b| {
        b.iter(|| narrow.input_gradient(&mut dx, Store::Replace, &dy, &mut scratch));
    });
    for rank in [4, 16, 64] {
        let (down, up) = (floats(rank * inputs), floats(outputs * rank));
        let (mut h, mut y) = (floats(rows * rank), dy.clone());
        let (mut d_down, mut d_up) = (down.clone(), up.clone());
        group.throughput(Throughput::Elements((2 * rows * rank * (inputs + outputs)) as u64));
        group.bench_function(BenchmarkId::new("forward", rank), |b| {
            b.iter(|| {
                linear(&mut h, &x, &down, rows, inputs, rank);
                linear(&mut y, &h, &up, rows, rank, outputs);
            });
        });
        group.throughput(Throughput::Elements((4 * rows * rank * (inputs + outputs)) as u64));
        group.bench_function(BenchmarkId::new("backward", rank), |b| {
            b.iter(|| {
                linear_weight_gradient(&mut d_up, Store::Replace, &dy, &h, rows, rank, outputs);
                linear_input_gradient(&mut h, Store::Replace, &dy, &up, rows, rank, outputs);
                linear_weight_gradient(&mut d_down, Store::Replace, &h, &x, rows, inputs, rank);
                linear_input_gradient(&mut dx, Store::Add, &h, &down, rows, inputs, rank);
            });
        });
    }
}

fn passes(c: &mut Criterion) {
    let mut group = c.benchmark_group("memory");
    let (rows, width) = (4096, 768);
    let n = rows * width;
    let (x, mut y, mut sum, mut stats) = (floats(n), floats(n), floats(n), vec![0.0; 2 * rows]);
    let (gamma, beta) = (vec![1.0; width], vec![0.0; width]);
    let norm = LayerNorm { gamma: &gamma, beta: &beta, epsilon: 1e-12 };
    group.throughput(Throughput::Bytes(8 * n as u64));
    group.bench_function("copy", |b| b.iter(|| black_box(&mut y).copy_from_slice(black_box(&x))));
    group.throughput(Throughput::Bytes(16 * n as u64));
    group.bench_function("residual + layer norm", |b| {
        b.iter(|| {
            layer_norm(NormOutputs { y: &mut y, half: &mut [], sum: &mut sum, stats: &mut stats }, &x, &x, norm);
        });
    });
    let (mut dx, mut d_residual) = (floats(n), floats(n));
    let saved = NormSaved { sum: &sum, stats: &stats, gamma: &gamma };
    group.bench_function("layer norm backward", |b| {
        b.iter(|| {
            let d_x = GradientOf { gradient: dx.as_mut_slice(), add: false };
            layer_norm_backward(d_x, GradientOf { gradient: &mut d_residual, add: false }, &x, saved);
        });
    });
    group.throughput(Throughput::Bytes(12 * n as u64));
    group.bench_function("gelu backward", |b| b.iter(|| activation::backward(Activation::Gelu, &mut dx, &x)));
    group.throughput(Throughput::Bytes(28 * n as u64));
    let (mut values, mut first, mut second) = (floats(n), vec![0.0; n], vec![0.0; n]);
    let adam = AdamW {
        learning_rate: 1e-5,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
        gradient_scale: 0.5,
        step: 10,
    };
    group.bench_function("AdamW", |b| {
        b.iter(|| adamw(Tensor { values: &mut values, first: &mut first, second: &mut second, gradient: &x }, adam));
    });
}

criterion_group! {
    name = kernels;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(2)).warm_up_time(std::time::Duration::from_millis(500));
    targets = limits, products_f32, products_narrow, products_low_precision, attentions, attentions_of_decoders, adapters,
        passes
}
criterion_main!(kernels);
