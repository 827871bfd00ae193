//! The decoder that Llama, Mistral, Phi, GPT-2, Qwen and Gemma share: token ids → states → logits, over a cache of keys and values.
//!
//! The families differ in names, sizes, norms and in how a layer adds up, not in calculus; each states its
//! [`DecoderConfig`] in its own file. Weights come from safetensors or GGUF under their Hugging Face names and are
//! packed as they are read, so that they are never in memory twice. Loading is strict, as for encoders.

use super::config::ConfigError;
use super::decoder_config::{DecoderConfig, LayerKind, NormKind, Rotary};
use super::gguf::{self, GgufModelError};
use super::layer::{Adapters, Layer, Norms, Reach};
use super::network::Network;
use crate::nn;
use crate::nn::gguf::Gguf;
use crate::nn::weights::{Checkpoint, WeightError};
use crate::nn::{
    Asker, AttentionSpec, Batch, EmbedSpec, HeadNormSpec, Initial, KvCache, LinearSpec, Mask, NormSpec, Packed,
    PackedLayer, Parameters, Place, Precision, Role, Span, State, Storage, Tape, Var, Weights,
};
use kernels::attention::cached::CacheShape;
use kernels::attention::packed;
use kernels::bf16::Bf16;
use kernels::gemm::{Int8Weight, PackedWeight};
use kernels::parallel::inside;
use kernels::rotary::RotaryTable;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a decoder could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum DecoderError {
    /// The config.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// The GGUF file.
    #[error(transparent)]
    Gguf(#[from] GgufModelError),
    /// A generator was asked of a checkpoint without logits, or a judge of one without a score.
    #[error("{path}: tensor `{tensor}` is missing: this checkpoint {what}")]
    NoHead {
        /// Directory.
        path: PathBuf,
        /// The missing tensor.
        tensor: String,
        /// What it cannot do.
        what: &'static str,
    },
}

/// What becomes of the matrices.
#[derive(Clone, Copy)]
enum Keep {
    /// Packed as they are read, with no place in the flat buffer.
    Packed(Precision),
    /// In the flat buffer.
    Flat,
    /// Those of the layers packed for packed batches, as an encoder's; tables and head in the flat buffer.
    Scoring(Precision),
}

impl Keep {
    /// Where the matrices of the layers are, and where the tables of words.
    fn places(self) -> [Place; 2] {
        match self {
            Keep::Packed(_) => [Place::Packed, Place::Packed],
            Keep::Flat => [Place::Flat, Place::Flat],
            Keep::Scoring(_) => [Place::Packed, Place::Flat],
        }
    }

    fn precision(self) -> Precision {
        match self {
            Keep::Packed(precision) | Keep::Scoring(precision) => precision,
            Keep::Flat => Precision::F32,
        }
    }

    fn pack(self, weight: &[f32], spec: &LinearSpec) -> PackedLayer {
        match self {
            Keep::Scoring(precision) => PackedLayer::for_scoring(weight, spec, precision),
            _ => PackedLayer::for_decoding(weight, spec.inputs, spec.outputs, self.precision()),
        }
    }
}

/// Deviation of new weights (`initializer_range` of the families).
const DEVIATION: f32 = 0.02;

/// What is read off the last states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecoderHead {
    /// A logit for each word.
    Words,
    /// A score for each label (`score.weight`, as in `…ForSequenceClassification`).
    Score,
}

/// Where tensors come from: each is asked for by its Hugging Face name.
pub(super) trait TensorSource {
    /// What the file calls a tensor, if it holds it.
    fn stored(&self, name: &str) -> Option<String>;
    /// Dimensions of a tensor that it holds.
    fn shape(&self, name: &str) -> Vec<usize>;
    /// Its values.
    fn read(&self, name: &str, values: &mut [f32]) -> Result<(), DecoderError>;
    /// What the file calls all of its tensors, with their dimensions.
    fn all(&self) -> Vec<(String, Vec<usize>)>;
    /// What errors name.
    fn path(&self) -> &Path;
}

impl TensorSource for Checkpoint {
    fn stored(&self, name: &str) -> Option<String> {
        self.tensors.contains_key(name).then(|| name.to_owned())
    }

    fn shape(&self, name: &str) -> Vec<usize> {
        self.tensors[name].shape.clone()
    }

    fn read(&self, name: &str, values: &mut [f32]) -> Result<(), DecoderError> {
        Ok(Checkpoint::read(self, name, values)?)
    }

    fn all(&self) -> Vec<(String, Vec<usize>)> {
        self.tensors.iter().map(|(name, stored)| (name.clone(), stored.shape.clone())).collect()
    }

    fn path(&self) -> &Path {
        Checkpoint::path(self)
    }
}

impl TensorSource for Gguf {
    fn stored(&self, name: &str) -> Option<String> {
        gguf::stored_name(self, name)
    }

    fn shape(&self, name: &str) -> Vec<usize> {
        gguf::shape(self, name).unwrap_or_default()
    }

    fn read(&self, name: &str, values: &mut [f32]) -> Result<(), DecoderError> {
        Ok(gguf::read_tensor(self, name, values)?)
    }

    fn all(&self) -> Vec<(String, Vec<usize>)> {
        self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect()
    }

    fn path(&self) -> &Path {
        Gguf::path(self)
    }
}

/// A linear layer with the tensors that make it up.
#[derive(Clone, Debug)]
struct Layered {
    spec: LinearSpec,
    weights: Vec<String>,
    /// Stored `[inputs, outputs]`.
    transposed: bool,
    place: Place,
}

#[derive(Clone, Debug)]
struct Wiring {
    network: Network,
    head: LinearSpec,
}

/// A loaded decoder.
pub struct Decoder {
    /// What its config says.
    pub config: DecoderConfig,
    parameters: Parameters,
    packed: Packed,
    wiring: Wiring,
    rotaries: Vec<Arc<RotaryTable>>,
    precision: Precision,
}

/// Declares tensors in wiring order and keeps what has to be read for them.
struct Declare<'a> {
    config: &'a DecoderConfig,
    parameters: Parameters,
    /// Where the matrices of the layers are kept, and the tables of words.
    places: [Place; 2],
    /// Whether words are read off the table that they are looked up in.
    tied: bool,
    /// The matrices.
    layered: Vec<Layered>,
    /// Vectors and tables that are read as they are, by their position in the parameters.
    plain: Vec<usize>,
}

impl<'a> Declare<'a> {
    fn new(config: &'a DecoderConfig, places: [Place; 2], tied: bool) -> Self {
        let (parameters, layered, plain) = Default::default();
        Self { config, parameters, places, tied, layered, plain }
    }

    fn vector(&mut self, name: &str, shape: &[usize]) -> Result<Span, WeightError> {
        let span = self.parameters.declare(name, shape, Initial::Zero)?;
        self.plain.push(self.parameters.specs().len() - 1);
        Ok(span)
    }

    fn matrix(&mut self, place: Place, name: &str, shape: &[usize; 2]) -> Result<Span, WeightError> {
        self.parameters.declare_at(place, format!("{name}.weight"), shape, Initial::Normal(DEVIATION))
    }

    /// One layer of several tensors, whose outputs stand side by side.
    fn linear(
        &mut self,
        names: &[String],
        inputs: usize,
        outputs: &[usize],
        bias: bool,
    ) -> Result<LinearSpec, WeightError> {
        let (transposed, place) = (self.config.names.transposed, self.places[0]);
        let mut spans = Vec::new();
        for (name, outputs) in names.iter().zip(outputs) {
            let shape = if transposed { [inputs, *outputs] } else { [*outputs, inputs] };
            spans.push(self.matrix(place, name, &shape)?);
        }
        let mut biases = Vec::new();
        for (name, outputs) in names.iter().zip(outputs).filter(|_| bias) {
            biases.push(self.vector(&format!("{name}.bias"), &[*outputs])?);
        }
        let weight = Span::join(&spans);
        let bias = if biases.is_empty() { Span { start: 0, len: 0 } } else { Span::join(&biases) };
        let spec = LinearSpec { weight, bias, inputs, outputs: outputs.iter().sum() };
        let weights = names.iter().map(|name| format!("{name}.weight")).collect();
        self.layered.push(Layered { spec, weights, transposed, place });
        Ok(spec)
    }

    /// A table of words or a head: never stored transposed.
    fn table(&mut self, name: &str, rows: usize, bias: bool) -> Result<LinearSpec, WeightError> {
        let (width, place) = (self.config.hidden, self.places[1]);
        // What only the ids of a step read has gradients for their rows alone.
        let weight = if place == Place::Flat && name == self.config.names.words && !self.tied {
            self.parameters.declare_sparse(format!("{name}.weight"), &[rows, width], Initial::Normal(DEVIATION))?
        } else {
            self.matrix(place, name, &[rows, width])?
        };
        let none = Span { start: 0, len: 0 };
        let bias = if bias { self.vector(&format!("{name}.bias"), &[rows])? } else { none };
        let spec = LinearSpec { weight, bias, inputs: width, outputs: rows };
        let weights = vec![format!("{name}.weight")];
        self.layered.push(Layered { spec, weights, transposed: false, place });
        Ok(spec)
    }

    fn norm(&mut self, name: &str) -> Result<NormSpec, WeightError> {
        let width = self.config.hidden;
        let gamma = self.vector(&format!("{name}.weight"), &[width])?;
        let beta = match self.config.norm {
            NormKind::Layer => Some(self.vector(&format!("{name}.bias"), &[width])?),
            NormKind::Rms | NormKind::RmsPlusOne => None,
        };
        let kind = match self.config.norm {
            NormKind::Layer => nn::NormKind::Layer,
            NormKind::Rms | NormKind::RmsPlusOne => nn::NormKind::Rms,
        };
        Ok(NormSpec { kind, gamma, beta, epsilon: self.config.epsilon })
    }

    fn layer(&mut self, index: usize) -> Result<Layer, WeightError> {
        self.parameters.begin(Role::Layer(index));
        let config = self.config;
        let (names, hidden, biases) = (config.names, config.hidden, config.biases);
        let name = |part: &str| format!("{}{index}.{part}", names.layers);
        let names_of = |parts: &[&str]| parts.iter().map(|part| name(part)).collect::<Vec<_>>();
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let qkv = if names.qkv.len() == 1 { vec![q + 2 * kv] } else { vec![q, kv, kv] };
        let ups = vec![config.intermediate; names.up.len()];
        let head_norms = match names.head_norms {
            None => None,
            Some([q, k]) => {
                let mut one = |part: &str| self.vector(&format!("{}.weight", name(part)), &[config.head_dim]);
                Some([one(q)?, one(k)?])
            }
        };
        let norms = self.norms(&name)?;
        let attention_out = names.out;
        let LayerKind { window, rotary: turns } = config.kinds[index];
        Ok(Layer {
            turns,
            attention: AttentionSpec {
                heads: config.heads,
                key_heads: config.kv_heads,
                head_dim: config.head_dim,
                scale: config.scale,
                mask: window.map_or(Mask::Causal, |window| Mask::Window { before: window - 1, after: 0 }),
                soft_cap: config.soft_cap,
                norms: head_norms.map(|[q, k]| HeadNormSpec { q, k, epsilon: config.epsilon }),
                rotary: None,
            },
            qkv: self.linear(&names_of(names.qkv), hidden, &qkv, biases.qkv)?,
            attention_out: self.linear(&[name(attention_out)], q, &[hidden], biases.out)?,
            up: self.linear(&names_of(names.up), hidden, &ups, biases.mlp)?,
            down: self.linear(&[name(names.down)], config.intermediate, &[hidden], biases.mlp)?,
            gated: names.up.len() > 1,
            activation: config.activation,
            norms,
            adapters: Adapters::default(),
        })
    }

    /// The norms of a layer, whose tensors `name` names.
    fn norms(&mut self, name: &dyn Fn(&str) -> String) -> Result<Norms, WeightError> {
        let names = self.config.names;
        let attention = self.norm(&name(names.attention_norm))?;
        let Some(mlp) = names.mlp_norm else {
            return Ok(Norms::Parallel(attention));
        };
        let before = [attention, self.norm(&name(mlp))?];
        Ok(match names.post_norms {
            None => Norms::Pre(before),
            Some([attention, mlp]) => {
                Norms::Sandwich { before, after: [self.norm(&name(attention))?, self.norm(&name(mlp))?] }
            }
        })
    }

    fn wiring(&mut self, head: DecoderHead) -> Result<Wiring, WeightError> {
        let (config, names) = (self.config, self.config.names);
        let words = self.table(names.words, config.vocabulary, false)?;
        let positions = match names.positions {
            None => None,
            Some(name) => Some(self.vector(&format!("{name}.weight"), &[config.positions, config.hidden])?),
        };
        let layers = (0..config.layers).map(|index| self.layer(index)).collect::<Result<_, _>>()?;
        let final_norm = self.norm(names.final_norm)?;
        self.parameters.begin(Role::Output);
        let head = match head {
            DecoderHead::Score => self.table("score", config.labels, false)?,
            DecoderHead::Words if config.tied => words,
            DecoderHead::Words => self.table("lm_head", config.vocabulary, config.biases.head)?,
        };
        let embedding = EmbedSpec { words: words.weight, scale: config.word_scale, types: None, positions };
        let (hidden, final_norm) = (config.hidden, Some(final_norm));
        Ok(Wiring { network: Network { hidden, embedding, embedding_norm: None, layers, final_norm }, head })
    }
}

/// Which rows of the last states become logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitRows {
    /// The last token of each sequence.
    Last,
    /// All tokens.
    All,
}

impl Decoder {
    /// Loads a checkpoint directory with `config.json` and safetensors, or a `.gguf` file.
    ///
    /// # Errors
    /// [`DecoderError`] for a config or tensors that do not describe exactly this model.
    pub fn load(path: &Path, head: DecoderHead, precision: Precision) -> Result<Self, DecoderError> {
        Self::load_as(path, head, Keep::Packed(precision))
    }

    /// As [`Self::load`], with all values in the flat buffer in f32: a program over it has a way back.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_flat(path: &Path, head: DecoderHead) -> Result<Self, DecoderError> {
        Self::load_as(path, head, Keep::Flat)
    }

    /// Loads a judge to score packed batches with, in `asked` or else [`Precision::best`]; in f32 where the processor or
    /// the model's sizes forbid it.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub(super) fn load_judge(
        dir: &Path,
        config: DecoderConfig,
        asked: Option<Precision>,
    ) -> Result<Self, DecoderError> {
        let keep = match Self::scoring_precision(&config, asked.unwrap_or_else(Precision::best))? {
            Precision::F32 => Keep::Flat,
            precision => Keep::Scoring(precision),
        };
        Self::assemble(config, &Checkpoint::open(dir)?, DecoderHead::Score, keep)
    }

    /// The precision that a judge of this config scores in when `asked` for one.
    fn scoring_precision(config: &DecoderConfig, asked: Precision) -> Result<Precision, DecoderError> {
        let wiring = Declare::new(config, Keep::Flat.places(), false).wiring(DecoderHead::Score)?;
        let fits = |l: &LinearSpec| match asked {
            Precision::Int8 => Int8Weight::fits(l.inputs, l.outputs),
            _ => PackedWeight::fits(l.inputs, l.outputs),
        };
        // Without bf16, int8's attention is f32's, which takes heads of any size.
        let attention = asked == Precision::Int8 && !Precision::Bf16.runs_here()
            || packed::fits(config.head_dim, size_of::<Bf16>());
        // What two parts add side by side is summed in f32 alone.
        let parallel = wiring.network.layers.iter().any(|layer| matches!(layer.norms, Norms::Parallel(_)));
        let fits = attention && !parallel && wiring.network.products(None).iter().all(fits);
        Ok(if fits && asked.runs_here() { asked } else { Precision::F32 })
    }

    fn load_as(path: &Path, head: DecoderHead, keep: Keep) -> Result<Self, DecoderError> {
        if path.is_dir() {
            let config = DecoderConfig::read(path)?;
            config.check_head(&path.join("config.json"), head)?;
            return Self::assemble(config, &Checkpoint::open(path)?, head, keep);
        }
        let file = Gguf::open(path).map_err(GgufModelError::from)?;
        let config = DecoderConfig::check(path, gguf::config(&file)?)?;
        Self::assemble(config, &file, head, keep)
    }

    fn assemble(
        config: DecoderConfig,
        source: &dyn TensorSource,
        head: DecoderHead,
        keep: Keep,
    ) -> Result<Self, DecoderError> {
        let precision = keep.precision();
        let mut declare = Declare::new(&config, keep.places(), head == DecoderHead::Words && config.tied);
        let wiring = declare.wiring(head)?;
        let Declare { parameters, mut layered, plain, .. } = declare;
        let mut decoder =
            Self { config, parameters, packed: Packed::default(), wiring, rotaries: Vec::new(), precision };
        let names = decoder.match_tensors(source, head)?;
        decoder.parameters.allocate();
        for index in plain {
            let span = decoder.parameters.specs()[index].span;
            source.read(&names[index], &mut decoder.parameters.values[span.range()])?;
        }
        if decoder.config.norm == NormKind::RmsPlusOne {
            decoder.add_one_to_norms();
        }
        // The largest first: a matrix takes four bytes a value until it is packed, and there is most room at the start.
        layered.sort_by_key(|layer| std::cmp::Reverse(layer.spec.inputs * layer.spec.outputs));
        let mut packed = Vec::new();
        for layer in &layered {
            let weight = decoder.read_layer(source, layer, &names)?;
            match layer.place {
                Place::Flat => decoder.parameters.values[layer.spec.weight.range()].copy_from_slice(&weight),
                Place::Packed => packed.push((layer.spec, keep.pack(&weight, &layer.spec))),
            }
        }
        decoder.packed = Packed::new(packed);
        Ok(decoder)
    }

    /// For each parameter the name of its tensor. Every tensor must find its use.
    fn match_tensors(&self, source: &dyn TensorSource, head: DecoderHead) -> Result<Vec<String>, DecoderError> {
        let names = self.config.names;
        let mut left: BTreeMap<String, Vec<usize>> = source.all().into_iter().collect();
        let mut found = Vec::new();
        for spec in self.parameters.specs() {
            let bare = spec.name.strip_prefix(names.prefix).unwrap_or(&spec.name);
            let held = [spec.name.as_str(), bare].into_iter().find_map(|n| source.stored(n).map(|stored| (n, stored)));
            let Some((name, stored)) = held else {
                return Err(missing(source, &spec.name, &spec.shape, head));
            };
            let shape = source.shape(name);
            if shape != spec.shape {
                let (expected, tensor) = (spec.shape.clone(), stored);
                return Err(WeightError::Shape { path: source.path().into(), tensor, expected, found: shape }.into());
            }
            left.remove(&stored);
            found.push(name.to_owned());
        }
        let other_head = |name: &str| match head {
            DecoderHead::Words => name == "score.weight" || (self.config.tied && name == "lm_head.weight"),
            DecoderHead::Score => name.starts_with("lm_head.") || name.starts_with("output."),
        };
        let ignored = |name: &str| other_head(name) || names.ignored.iter().any(|end| name.ends_with(end));
        match left.into_iter().find(|(name, _)| !ignored(name)) {
            None => Ok(found),
            Some((tensor, shape)) => Err(WeightError::Unexpected { path: source.path().into(), tensor, shape }.into()),
        }
    }

    /// Gemma stores the scales of its norms without their 1.
    fn add_one_to_norms(&mut self) {
        let Network { layers, final_norm, .. } = &self.wiring.network;
        let mut spans: Vec<Span> = final_norm.iter().map(|norm| norm.gamma).collect();
        for layer in layers {
            let norms = match layer.norms {
                Norms::Post(norms) | Norms::Pre(norms) => norms.to_vec(),
                Norms::Parallel(norm) => vec![norm],
                Norms::Sandwich { before, after } => [before, after].concat(),
            };
            spans.extend(norms.into_iter().map(|norm| norm.gamma));
            spans.extend(layer.attention.norms.into_iter().flat_map(|norms| [norms.q, norms.k]));
        }
        for span in spans {
            self.parameters.values[span.range()].iter_mut().for_each(|gamma| *gamma += 1.0);
        }
    }

    /// Reads the tensors of one matrix, `[outputs, inputs]`.
    fn read_layer(
        &self,
        source: &dyn TensorSource,
        layer: &Layered,
        names: &[String],
    ) -> Result<Vec<f32>, DecoderError> {
        let LinearSpec { inputs, outputs, .. } = layer.spec;
        let mut weight = vec![0.0; inputs * outputs];
        let mut rest = weight.as_mut_slice();
        for declared in &layer.weights {
            let index = self.parameters.specs().iter().position(|spec| spec.name == *declared);
            let index = index.expect("a layer's tensors are declared");
            let (own, after) = rest.split_at_mut(self.parameters.specs()[index].span.len);
            source.read(&names[index], own)?;
            if layer.transposed {
                transpose(own, inputs);
            }
            rest = after;
        }
        Ok(weight)
    }

    /// How its weights are kept.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// A cache for `slots` texts of up to `capacity` tokens: f32 in f32, else bf16. Prepares the turns of that many positions.
    pub fn cache(&mut self, slots: usize, capacity: usize) -> KvCache {
        self.prepare_turns(capacity);
        let config = &self.config;
        let storage = if self.precision == Precision::F32 { Storage::F32 } else { Storage::Bf16 };
        KvCache::new(config.layers, slots, self.cache_shape(capacity), storage)
    }

    /// Prepares the turns of texts of up to so many tokens.
    pub fn prepare_turns(&mut self, positions: usize) {
        let known = self.rotaries.first().map_or(0, |table| table.positions());
        if known < positions {
            let table = |rotary: &Rotary| Arc::new(RotaryTable::new(&rotary.frequencies, 1.0, positions));
            self.rotaries = self.config.rotaries.iter().map(table).collect();
        }
    }

    /// The logits (or scores) of new tokens, `[rows, outputs]`: the tape's memory is read until its next program. An
    /// empty batch has none.
    ///
    /// # Panics
    /// When the cache is not one that [`Self::cache`] made, or a piece of the batch lies outside it.
    pub fn logits<'a>(
        &self,
        tape: &'a mut Tape,
        batch: &Batch,
        cache: &mut KvCache,
        wanted: LogitRows,
    ) -> &'a mut [f32] {
        self.run(tape, batch, cache, |tape| {
            let states = self.wiring.network.push(tape, batch, &self.rotaries, Reach::Cache);
            let states = match wanted {
                LogitRows::All => states,
                LogitRows::Last => tape.rows(states, Asker::Last.rows(batch)),
            };
            tape.linear(states.operand, self.wiring.head, None)
        })
    }

    /// The states after the final norm, `[tokens, hidden]`.
    ///
    /// # Panics
    /// As [`Self::logits`].
    pub fn states<'a>(&self, tape: &'a mut Tape, batch: &Batch, cache: &mut KvCache) -> &'a [f32] {
        self.run(tape, batch, cache, |tape| self.wiring.network.push(tape, batch, &self.rotaries, Reach::Cache).full)
    }

    /// Runs what `build` pushes, on a thread of the pool.
    fn run<'a>(
        &self,
        tape: &'a mut Tape,
        batch: &Batch,
        cache: &mut KvCache,
        build: impl FnOnce(&mut Tape) -> Var + Send,
    ) -> &'a mut [f32] {
        if batch.tokens() == 0 {
            return &mut [];
        }
        self.check(batch, cache);
        inside(|| {
            tape.start(Default::default(), Storage::F32);
            let result = build(tape);
            let weights = Weights { values: &self.parameters.values, packed: &self.packed };
            tape.forward_cached(result, weights, batch, cache);
            tape.value_mut(result)
        })
    }

    /// The cache is this model's, its turns are prepared, and every piece of the batch lies inside it.
    fn check(&self, batch: &Batch, cache: &KvCache) {
        let (slots, shape) = cache.shape();
        assert_eq!(shape, self.cache_shape(shape.capacity), "the cache is another model's");
        let tables = self.config.rotaries.iter().zip(&self.rotaries);
        let mut prepared = tables.map(|(own, table)| own.frequencies.is_empty() || table.positions() >= shape.capacity);
        let has_all = self.rotaries.len() == self.config.rotaries.len();
        assert!(
            prepared.all(|is| is) && has_all,
            "make the cache with this decoder's `cache`, which prepares its turns"
        );
        let ends = batch.offsets()[1..].iter().map(|end| batch.positions()[end - 1] as usize);
        let fits = batch.slots().iter().zip(ends).all(|(slot, last)| *slot < slots && last < shape.capacity);
        assert!(fits, "a piece lies outside the cache of {slots} slots of {} tokens", shape.capacity);
    }

    fn cache_shape(&self, capacity: usize) -> CacheShape {
        let DecoderConfig { heads, kv_heads, head_dim, .. } = self.config;
        CacheShape { heads, kv_heads, head_dim, capacity }
    }

    /// Pushes the decoder over whole texts: the states after the final norm of all tokens, or of one of each text.
    ///
    /// # Panics
    /// When a text has more tokens than [`Self::prepare_turns`] was told.
    pub fn push_whole(&self, tape: &mut Tape, batch: &Batch, asked: Option<Asker>) -> State {
        let network = &self.wiring.network;
        let apart = asked.filter(|_| self.packed.is_empty()); // Packed, queries, keys and values are one product.
        let states = network.push(tape, batch, &self.rotaries, network.whole(apart));
        match asked.filter(|_| apart.is_none()) {
            Some(asker) => tape.rows(states, asker.rows(batch)),
            None => states,
        }
    }

    /// What a score's head reads of each text: the state of its last token, `[texts, hidden]`.
    pub(super) fn push_features(&self, tape: &mut Tape, batch: &Batch) -> Var {
        self.push_whole(tape, batch, Some(Asker::Last)).full
    }

    /// The scores of whole texts, `[texts, labels]`.
    pub(super) fn push_scores(&self, tape: &mut Tape, batch: &Batch) -> Var {
        let features = self.push_features(tape, batch);
        tape.linear(features, self.wiring.head, None)
    }

    /// How values flow between its layers.
    pub(super) fn storage(&self) -> Storage {
        self.packed.storage()
    }

    /// The most tokens of a text whose turns are prepared.
    pub(super) fn prepared_tokens(&self) -> usize {
        let turned = self.config.rotaries.iter().any(|rotary| !rotary.frequencies.is_empty());
        let tables = self.rotaries.first().map_or(0, |table| table.positions());
        if turned { tables.min(self.config.positions) } else { self.config.positions }
    }

    /// The weights as ops read them.
    pub fn weights(&self) -> Weights<'_> {
        Weights { values: &self.parameters.values, packed: &self.packed }
    }

    /// Its tensors. Those that are packed have no values here.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }
}

/// `[inputs, outputs]` → `[outputs, inputs]`, in place.
fn transpose(values: &mut [f32], inputs: usize) {
    let outputs = values.len() / inputs;
    let stored = values.to_vec();
    for (output, row) in values.chunks_exact_mut(inputs).enumerate() {
        row.iter_mut().enumerate().for_each(|(input, value)| *value = stored[input * outputs + output]);
    }
}

fn missing(source: &dyn TensorSource, tensor: &str, shape: &[usize], head: DecoderHead) -> DecoderError {
    let path = source.path().to_path_buf();
    match (head, tensor) {
        (DecoderHead::Words, "lm_head.weight") => {
            DecoderError::NoHead { path, tensor: tensor.into(), what: "has no logits and cannot generate" }
        }
        (DecoderHead::Score, "score.weight") => {
            DecoderError::NoHead { path, tensor: tensor.into(), what: "is no judge" }
        }
        _ => WeightError::Missing { path, tensor: tensor.into(), shape: shape.into() }.into(),
    }
}
