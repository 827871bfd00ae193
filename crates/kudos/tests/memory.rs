//! A decoder takes the memory of its precision and reserves none beside it, shown by opening one under a limit of the
//! address space.
//!
//! The checkpoint is a sparse file of zeros, which takes no disk. The limit holds for a whole process, so the opening
//! is a child's: an ignored test of this file, started by the others with a directory in [`DIRECTORY`].
#![cfg(target_os = "linux")]

use kudos::models::{Decoder, DecoderHead, LogitRows};
use kudos::nn::{Batch, Precision, Tape};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// The environment variable that tells the child what to open.
const DIRECTORY: &str = "KUDOS_TEST_DECODER";
const MEGABYTE: usize = 1 << 20;

/// The sizes of a Qwen3.
struct Shape {
    hidden: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    intermediate: usize,
    vocabulary: usize,
}

const HEAD_DIM: usize = 128;

impl Shape {
    fn config(&self) -> Value {
        json!({"model_type": "qwen3", "hidden_size": self.hidden, "num_hidden_layers": self.layers,
               "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads, "head_dim": HEAD_DIM,
               "intermediate_size": self.intermediate, "vocab_size": self.vocabulary, "hidden_act": "silu",
               "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
               "tie_word_embeddings": false})
    }

    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (hidden, intermediate) = (self.hidden, self.intermediate);
        let (q, kv) = (self.heads * HEAD_DIM, self.kv_heads * HEAD_DIM);
        let mut tensors = vec![
            ("model.embed_tokens.weight".to_owned(), vec![self.vocabulary, hidden]),
            ("lm_head.weight".to_owned(), vec![self.vocabulary, hidden]),
            ("model.norm.weight".to_owned(), vec![hidden]),
        ];
        for layer in 0..self.layers {
            let parts = [
                ("input_layernorm", vec![hidden]),
                ("post_attention_layernorm", vec![hidden]),
                ("self_attn.q_norm", vec![HEAD_DIM]),
                ("self_attn.k_norm", vec![HEAD_DIM]),
                ("self_attn.q_proj", vec![q, hidden]),
                ("self_attn.k_proj", vec![kv, hidden]),
                ("self_attn.v_proj", vec![kv, hidden]),
                ("self_attn.o_proj", vec![hidden, q]),
                ("mlp.gate_proj", vec![intermediate, hidden]),
                ("mlp.up_proj", vec![intermediate, hidden]),
                ("mlp.down_proj", vec![hidden, intermediate]),
            ];
            tensors.extend(parts.map(|(part, shape)| (format!("model.layers.{layer}.{part}.weight"), shape)));
        }
        tensors
    }

    fn parameters(&self) -> usize {
        self.tensors().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Writes config and weights: a header, and zeros that take no disk.
    fn write(&self, dir: &Path) {
        std::fs::write(dir.join("config.json"), self.config().to_string()).unwrap();
        let (mut header, mut end) = (Map::new(), 0);
        for (name, shape) in self.tensors() {
            let start = end;
            end += 2 * shape.iter().product::<usize>();
            header.insert(name, json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}));
        }
        let header = Value::Object(header).to_string();
        let mut file = std::fs::File::create(dir.join("model.safetensors")).unwrap();
        file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
        file.write_all(header.as_bytes()).unwrap();
        file.set_len((8 + header.len() + end) as u64).unwrap();
    }

    /// Opens it in 8 bits in a process that may have so many bytes beside those of the 8 bits.
    fn opens_with(&self, beside: usize) {
        let dir = tempfile::tempdir().unwrap();
        self.write(dir.path());
        let limit = self.parameters() + beside;
        assert!(limit < 4 * self.parameters(), "the limit would not be broken by f32");
        let output = Command::new("sh")
            .args(["-c", &format!("ulimit -v {} && exec \"$0\" \"$@\"", limit / 1024)])
            .arg(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "a_decoder_opens_and_computes", "--test-threads", "1"])
            .env(DIRECTORY, dir.path())
            .envs([("MALLOC_ARENA_MAX", "1"), ("RAYON_NUM_THREADS", "1")])
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(output.status.success() && said.contains("1 passed"), "{} MB: {said}", limit / MEGABYTE);
    }
}

#[test]
#[ignore = "the child of the other tests, which set the limit and the directory"]
fn a_decoder_opens_and_computes() {
    let dir = std::env::var_os(DIRECTORY).expect("the directory of a decoder");
    let mut model = Decoder::load(dir.as_ref(), DecoderHead::Words, Precision::Int8).unwrap();
    let (mut cache, mut tape, mut batch) = (model.cache(1, 8), Tape::default(), Batch::default());
    batch.push_cached(&[1, 2, 3], 0, 0).unwrap();
    let logits = model.logits(&mut tape, &batch, &mut cache, LogitRows::Last);
    assert_eq!((logits.len(), logits.iter().all(|l| *l == 0.0)), (model.config.vocabulary, true));
}

/// 152 million parameters: 152 MB in 8 bits, 608 MB in f32. The program itself takes about a hundred.
#[test]
fn c2_a_decoder_reserves_nothing_beside_its_precision() {
    let shape = Shape { hidden: 1024, layers: 9, heads: 8, kv_heads: 8, intermediate: 4096, vocabulary: 1000 };
    shape.opens_with(256 * MEGABYTE);
}

/// Qwen3-8B: 8.2 GB in 8 bits, 32.8 GB in f32.
#[test]
#[ignore = "takes 8.5 GB of memory: by hand, with --ignored --exact"]
fn c2_an_eight_billion_shape_opens_in_its_size() {
    let shape = Shape { hidden: 4096, layers: 36, heads: 32, kv_heads: 8, intermediate: 12288, vocabulary: 151_936 };
    shape.opens_with(512 * MEGABYTE);
}
