//! A decoder that generates: token ids → logits, over a cache of keys and values.
//!
//! Its matrices are packed as they are read, so that they are never in memory twice, and multiply in f32.

use super::decoder::{self, DecoderHead};
use super::decoder_config::DecoderConfig;
use super::layer::Reach;
use super::load::{LoadError, Reader};
use super::network::Network;
use super::source::Stored;
use crate::nn::{
    Asker, Batch, KvCache, LinearSpec, Packed, PackedLayer, Parameters, Place, Precision, Span, State, Storage, Tape,
    Var, Weights,
};
use kernels::attention::cached::CacheShape;
use kernels::parallel::inside;
use kernels::rotary::RotaryTable;
use std::path::Path;
use std::sync::Arc;

/// A loaded decoder.
#[derive(Clone)]
pub struct Decoder {
    /// What its config says.
    pub config: DecoderConfig,
    pub(super) parameters: Parameters,
    pub(super) packed: Packed,
    pub(super) network: Network,
    pub(super) head: LinearSpec,
    pub(super) turns: Vec<Arc<RotaryTable>>,
    pub(super) precision: Precision,
}

/// What a decoder's values are kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// To be changed: all in the flat buffer.
    Flat,
    /// To write texts over a cache: narrow, for products of f32 with few rows.
    ToWrite(Precision),
    /// To read whole texts: in bf16 for products of bf16, or as [`Self::ToWrite`].
    ToRead(Precision),
}

impl Kept {
    fn precision(self) -> Precision {
        match self {
            Kept::Flat => Precision::F32,
            Kept::ToWrite(precision) | Kept::ToRead(precision) => precision,
        }
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
    /// [`LoadError`] for a config or tensors that do not describe exactly this model.
    pub fn load(path: &Path, head: DecoderHead, precision: Precision) -> Result<Self, LoadError> {
        Self::load_as(path, head, Kept::ToWrite(precision))
    }

    /// As [`Self::load`], with all values in the flat buffer in f32: a program over it has a way back.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_flat(path: &Path, head: DecoderHead) -> Result<Self, LoadError> {
        Self::load_as(path, head, Kept::Flat)
    }

    pub(super) fn load_as(path: &Path, head: DecoderHead, kept: Kept) -> Result<Self, LoadError> {
        let Stored { path, json, tensors } = Stored::open(path)?;
        let config = DecoderConfig::of(&path, json)?;
        config.check_head(&path, head)?;
        let place = if kept == Kept::Flat { Place::Flat } else { Place::Packed };
        let (mut parameters, network, out) = decoder::declare(&config, head, place)?;
        let names = decoder::tensor_names(&config, head);
        let reader = Reader::match_all(&parameters, names, tensors.as_ref(), |_, _| false)?;
        parameters.allocate();
        let mut decoder = Self {
            packed: Packed::default(),
            turns: Vec::new(),
            precision: kept.precision(),
            config,
            parameters,
            network,
            head: out,
        };
        if kept != Kept::Flat {
            let pack = |weight: &[f32], spec: &LinearSpec| decoder.pack(weight, spec, kept);
            decoder.packed = reader.pack(&decoder.parameters, &decoder.matrices(), false, pack)?;
        }
        reader.fill(&mut decoder.parameters, None)?;
        Ok(decoder)
    }

    /// A matrix as it is kept.
    fn pack(&self, weight: &[f32], spec: &LinearSpec, kept: Kept) -> PackedLayer {
        let of_words = [self.network.embedding.words, self.head.weight].contains(&spec.weight);
        match kept {
            Kept::ToRead(Precision::Bf16) if !of_words => PackedLayer::for_scoring(weight, spec, Precision::Bf16),
            kept => PackedLayer::for_decoding(weight, spec.inputs, spec.outputs, kept.precision()),
        }
    }

    /// The matrices of the layers, the table of words, and the head's where it is another.
    pub(super) fn matrices(&self) -> Vec<LinearSpec> {
        let DecoderConfig { hidden, vocabulary, .. } = self.config;
        let weight = self.network.embedding.words;
        let words = LinearSpec { weight, bias: Span { start: 0, len: 0 }, inputs: hidden, outputs: vocabulary };
        let head = (self.head.weight != weight).then_some(self.head);
        self.network.products(None).into_iter().chain([words]).chain(head).collect()
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
        let known = self.turns.first().map_or(0, |table| table.positions());
        if known < positions {
            self.turns = self.config.turns(positions);
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
            let states = self.network.push(tape, batch, &self.turns, Reach::Cache);
            let states = match wanted {
                LogitRows::All => states,
                LogitRows::Last => tape.rows(states, Asker::Last.rows(batch)),
            };
            tape.linear(states.operand, self.head, None)
        })
    }

    /// The states after the final norm, `[tokens, hidden]`.
    ///
    /// # Panics
    /// As [`Self::logits`].
    pub fn states<'a>(&self, tape: &'a mut Tape, batch: &Batch, cache: &mut KvCache) -> &'a [f32] {
        self.run(tape, batch, cache, |tape| self.network.push(tape, batch, &self.turns, Reach::Cache).full)
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
        let tables = self.config.rotaries.iter().zip(&self.turns);
        let mut prepared = tables.map(|(own, table)| own.frequencies.is_empty() || table.positions() >= shape.capacity);
        let has_all = self.turns.len() == self.config.rotaries.len();
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
        let network = &self.network;
        let apart = asked.filter(|_| self.packed.is_empty()); // Packed, queries, keys and values are one product.
        let states = network.push(tape, batch, &self.turns, network.whole(apart));
        match asked.filter(|_| apart.is_none()) {
            Some(asker) => tape.rows(states, asker.rows(batch)),
            None => states,
        }
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
