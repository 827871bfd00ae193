//! One loader for every model: what a checkpoint holds, matched strictly with what the model declares, becomes values in
//! the flat buffer, or matrices that are packed as they are read. The one licensed gap is that a base has no head.

use super::adapter::AdapterError;
use super::config::{Config, ConfigError, Fields};
use super::families::Family;
use super::gguf::GgufModelError;
use super::model::Model;
use super::network::Names;
use super::source::{Stored, TensorSource};
use crate::nn::weights::WeightError;
use crate::nn::{LinearSpec, Packed, PackedLayer, ParameterSpec, Parameters, Place, Precision, Role, Span};
use kernels::bf16::Bf16;
use kernels::gemm::Int8Weight;
use kernels::memory::zeroed;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The config.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// The GGUF file.
    #[error(transparent)]
    Gguf(#[from] GgufModelError),
    /// A LoRA adapter.
    #[error(transparent)]
    Adapter(Box<AdapterError>),
    /// A base where a judge is needed.
    #[error("{path}: no classification head (`{tensor}` is missing): this is a base, not a judge; train one with `kudos train DATA --base {}`", path.parent().unwrap_or(Path::new(".")).display())]
    NoHead {
        /// File.
        path: PathBuf,
        /// First missing tensor.
        tensor: String,
    },
    /// A generator was asked of a checkpoint without logits.
    #[error("{path}: tensor `{tensor}` is missing: this checkpoint has no logits and cannot generate")]
    NoLogits {
        /// File.
        path: PathBuf,
        /// The missing tensor.
        tensor: String,
    },
    /// A head of another width.
    #[error(
        "{path}: the classification head has {found} outputs, a judge has {wanted}; to replace it by a new one, train with --new-head"
    )]
    Labels {
        /// Directory.
        path: PathBuf,
        /// Outputs found.
        found: usize,
        /// Outputs wanted.
        wanted: usize,
    },
}

impl From<AdapterError> for LoadError {
    fn from(error: AdapterError) -> Self {
        LoadError::Adapter(Box::new(error))
    }
}

/// Where the classification head of a loaded model came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassifierSource {
    /// The checkpoint.
    Checkpoint,
    /// Newly initialised from the seed.
    New,
}

/// What a loader may do about a missing head.
#[derive(Clone, Copy, Debug)]
pub enum LoadOptions {
    /// A judge: the head must be there, with any number of outputs.
    Judge,
    /// A base for training one output: a missing head is made from `seed`.
    Base {
        /// Seed of the new head.
        seed: u64,
        /// Make a new head even where the checkpoint has one.
        new_head: bool,
    },
    /// A base for training several outputs, one an attribute; else as [`LoadOptions::Base`].
    Attributes {
        /// Seed of the new head.
        seed: u64,
        /// Make a new head even where the checkpoint has one.
        new_head: bool,
        /// Outputs wanted.
        labels: usize,
    },
}

/// What training asks of a base.
struct NewHead {
    seed: u64,
    always: bool,
    labels: usize,
}

impl LoadOptions {
    /// `None` for a judge, which is taken as it is.
    fn base(self) -> Option<NewHead> {
        match self {
            LoadOptions::Judge => None,
            LoadOptions::Base { seed, new_head } => Some(NewHead { seed, always: new_head, labels: 1 }),
            LoadOptions::Attributes { seed, new_head, labels } => Some(NewHead { seed, always: new_head, labels }),
        }
    }
}

/// Loads a base to train one output for each of these attributes. Its own head is kept where its outputs have exactly
/// these names in `id2label`, and `new_head` is not set.
///
/// # Errors
/// As [`load`].
pub fn load_for_attributes(
    model: &Path,
    names: &[String],
    seed: u64,
    new_head: bool,
) -> Result<(Model, ClassifierSource), LoadError> {
    let stored = Stored::open(model)?;
    let new_head = new_head || Config::check(&stored.path, stored.json)?.label_names() != names;
    load(model, LoadOptions::Attributes { seed, new_head, labels: names.len() })
}

/// Loads a model to train: a directory with `config.json` and safetensors, or, as a base, a `.gguf` file of a decoder.
/// All values are in the flat buffer, in f32; those that are stored in 8 bits are widened.
///
/// # Errors
/// [`LoadError`] for a config or tensors that do not describe exactly this model.
pub fn load(model: &Path, options: LoadOptions) -> Result<(Model, ClassifierSource), LoadError> {
    load_stored(model, Stored::open(model)?, options)
}

/// As [`load`], of a model that was opened.
pub(super) fn load_stored(
    model: &Path,
    Stored { path, json, tensors }: Stored,
    options: LoadOptions,
) -> Result<(Model, ClassifierSource), LoadError> {
    let (config, head) = with_head(model, judge_config(&path, json, options)?, tensors.as_ref(), options)?;
    let mut model = Model::declare(config)?;
    let reader = Reader::match_tensors(&model.parameters, model.names(), tensors.as_ref(), head)?;
    model.parameters.allocate();
    reader.fill(&mut model.parameters, options.base().map(|head| head.seed))?;
    Ok((model, head))
}

/// Loads a base whose matrices will not be trained. They are packed as they are read, for products there and back, and
/// have no place in the flat buffer: in bf16 or 8 bits. In f32 this is [`load`].
///
/// # Errors
/// As [`load`].
pub fn load_frozen(
    model: &Path,
    options: LoadOptions,
    precision: Precision,
) -> Result<(Model, ClassifierSource), LoadError> {
    let Stored { path, json, tensors } = Stored::open(model)?;
    let (config, head) = with_head(model, judge_config(&path, json, options)?, tensors.as_ref(), options)?;
    let mut frozen = Model::declare(config.clone())?;
    let reader = Reader::match_tensors(&frozen.parameters, frozen.names(), tensors.as_ref(), head)?;
    let precision = if precision == Precision::Int8 { precision } else { frozen.precision(precision) };
    if precision != Precision::F32 {
        frozen = Model::declare_with(config, Place::Packed, Place::Flat)?;
    }
    frozen.parameters.allocate();
    if precision != Precision::F32 {
        let pack = |weight: &[f32], spec: &LinearSpec| PackedLayer::frozen(weight, spec, precision);
        frozen.packed = reader.pack(&frozen.parameters, &frozen.packed_layers(), false, pack)?;
    }
    reader.fill(&mut frozen.parameters, options.base().map(|head| head.seed))?;
    Ok((frozen, head))
}

/// A config with as many outputs as are asked for, and where its head comes from.
fn with_head(
    model: &Path,
    mut config: Config,
    tensors: &dyn TensorSource,
    options: LoadOptions,
) -> Result<(Config, ClassifierSource), LoadError> {
    let head = head_source(&config, tensors, options)?;
    if let Some(NewHead { labels, .. }) = options.base() {
        if head == ClassifierSource::New {
            set_labels(&mut config, labels);
        }
        if config.labels() != labels {
            return Err(LoadError::Labels { path: model.into(), found: config.labels(), wanted: labels });
        }
    }
    Ok((config, head))
}

/// Opens a judge: its config, checked, and its tensors, not read yet.
pub(super) fn open_judge(dir: &Path) -> Result<(Config, Box<dyn TensorSource>), LoadError> {
    let Stored { path, json, tensors } = Stored::open(dir)?;
    Ok((judge_config(&path, json, LoadOptions::Judge)?, tensors))
}

/// Loads a judge to score with. Weights that are packed for the precision are read tensor by tensor, packed and dropped,
/// so they are never in memory twice and have no place in the flat buffer. A decoder's table of words stays in bf16 where it
/// is stored so, in any precision: a text reads a few of its rows.
///
/// # Errors
/// As [`load`].
pub(super) fn load_for_scoring(
    config: Config,
    tensors: &dyn TensorSource,
    asked: Option<Precision>,
) -> Result<(Model, Precision), LoadError> {
    let head = head_source(&config, tensors, LoadOptions::Judge)?;
    let mut model = Model::declare(config.clone())?;
    let reader = Reader::match_tensors(&model.parameters, model.names(), tensors, head)?;
    let default = || if reader.any_int8() { Precision::Int8 } else { Precision::best() };
    let precision = model.precision(asked.unwrap_or_else(default));
    let place = |packed: bool| if packed { Place::Packed } else { Place::Flat };
    let has_words = model.words().is_some_and(|words| reader.is_bf16(words));
    model = Model::declare_with(config, place(precision != Precision::F32), place(has_words))?;
    model.parameters.allocate();
    if precision != Precision::F32 {
        let matrices = model.packed_layers();
        let pack = |weight: &[f32], spec: &LinearSpec| PackedLayer::for_scoring(weight, spec, precision);
        model.packed = reader.pack(&model.parameters, &matrices, precision == Precision::Int8, pack)?;
    }
    if let Some(words) = model.words().filter(|_| has_words) {
        let (span, rows) = (words.span, reader.bf16(words)?);
        model.packed = std::mem::take(&mut model.packed).with_words(span, rows);
    }
    reader.fill(&mut model.parameters, None)?;
    Ok((model, precision))
}

/// Checks a config for what it is loaded as.
pub(super) fn judge_config(path: &Path, json: Map<String, Value>, options: LoadOptions) -> Result<Config, ConfigError> {
    let mut config = Config::check(path, json.clone())?;
    if let Config::Decoder(decoder) = &mut config {
        let fields = Fields { path, json: &json };
        let family = Family::find(&fields)?;
        if options.base().is_none() {
            super::judge::check_class(&fields, family.judge)?;
        }
        decoder.pad = super::judge::check_decoder(&fields)?;
    }
    Ok(config)
}

fn head_source(
    config: &Config,
    tensors: &dyn TensorSource,
    options: LoadOptions,
) -> Result<ClassifierSource, LoadError> {
    let model = Model::declare(config.clone())?;
    let mut head = model.parameters.specs().iter().rev().filter(|spec| spec.role >= Role::Head);
    let output = head.find(|spec| spec.name.ends_with(".weight")).expect("every family has a head");
    match (tensors.stored(&output.name).is_some(), options.base()) {
        (true, None | Some(NewHead { always: false, .. })) => Ok(ClassifierSource::Checkpoint),
        (_, Some(_)) => Ok(ClassifierSource::New),
        (false, None) => Err(LoadError::NoHead { path: tensors.path().into(), tensor: output.name.clone() }),
    }
}

pub(super) fn set_labels(config: &mut Config, labels: usize) {
    config.set_labels(labels);
    let label = |i: usize| format!("LABEL_{i}");
    let id2label: Map<_, _> = (0..labels).map(|i| (i.to_string(), label(i).into())).collect();
    let label2id: Map<_, _> = (0..labels).map(|i| (label(i), i.into())).collect();
    let json = config.json_mut();
    json.insert("id2label".into(), id2label.into());
    json.insert("label2id".into(), label2id.into());
    json.remove("num_labels");
    json.insert("problem_type".into(), Value::Null);
}

/// For each parameter the tensor that fills it, or `None` for a new one.
pub(super) struct Reader<'a> {
    source: &'a dyn TensorSource,
    /// By the parameters' names, since where they lie depends on what is packed.
    names: BTreeMap<String, Option<String>>,
}

impl<'a> Reader<'a> {
    /// Matches the tensors of a judge or of a base. Every tensor must find its use.
    pub(super) fn match_tensors(
        parameters: &Parameters,
        names: Names,
        source: &'a dyn TensorSource,
        head: ClassifierSource,
    ) -> Result<Self, LoadError> {
        let is_new = |spec: &ParameterSpec, found: Option<&[usize]>| {
            let of_new_head = head == ClassifierSource::New && spec.role >= Role::Head;
            of_new_head && (spec.role == Role::Output || found.is_none_or(|shape| shape != spec.shape))
        };
        Self::match_all(parameters, names, source, is_new)
    }

    /// As [`Self::match_tensors`]; `is_new` says which parameters are not read, be there a tensor of some shape or none.
    pub(super) fn match_all(
        parameters: &Parameters,
        names: Names,
        source: &'a dyn TensorSource,
        is_new: impl Fn(&ParameterSpec, Option<&[usize]>) -> bool,
    ) -> Result<Self, LoadError> {
        let mut left: BTreeMap<String, Vec<usize>> = source.all().into_iter().collect();
        let mut found = BTreeMap::new();
        for spec in parameters.specs() {
            let held =
                names.of(&spec.name).into_iter().find_map(|name| source.stored(&name).map(|stored| (name, stored)));
            let shape = held.as_ref().map(|(name, _)| source.shape(name));
            held.iter().for_each(|(_, stored)| drop(left.remove(stored)));
            let name = match held {
                _ if is_new(spec, shape.as_deref()) => None,
                Some((name, stored)) => Some(check_shape(source, spec, (name, stored), shape.unwrap_or_default())?),
                None => return Err(missing(source, spec)),
            };
            found.insert(spec.name.clone(), name);
        }
        match left.into_iter().find(|(name, _)| !names.is_unused(name)) {
            None => Ok(Self { source, names: found }),
            Some((tensor, shape)) => Err(WeightError::Unexpected { path: source.path().into(), tensor, shape }.into()),
        }
    }

    /// Whether any tensor is stored in 8 bits.
    fn any_int8(&self) -> bool {
        self.names.values().flatten().any(|name| self.source.is_int8(name))
    }

    /// Reads what has a place in the flat buffer; what is new is initialised from `seed`.
    pub(super) fn fill(&self, parameters: &mut Parameters, seed: Option<u64>) -> Result<(), LoadError> {
        for index in 0..parameters.specs().len() {
            let spec = parameters.specs()[index].clone();
            if spec.place() == Place::Packed {
                continue;
            }
            match (&self.names[&spec.name], seed) {
                (Some(name), _) => {
                    self.read(name, &spec, &mut parameters.values[spec.span.range()])?;
                }
                (None, Some(seed)) => parameters.initialise(index, seed),
                (None, None) => unreachable!("only a base has new parameters"),
            }
        }
        Ok(())
    }

    /// Reads and packs matrices, each of one or several tensors. Those that are stored in 8 bits are taken as they are where
    /// `units` says so.
    pub(super) fn pack(
        &self,
        parameters: &Parameters,
        matrices: &[LinearSpec],
        units: bool,
        pack: impl Fn(&[f32], &LinearSpec) -> PackedLayer,
    ) -> Result<Packed, LoadError> {
        // The largest first: a matrix takes four bytes a value until it is packed, and there is most room at the start.
        let mut matrices = matrices.to_vec();
        matrices.sort_by_key(|matrix| std::cmp::Reverse(matrix.weight.len));
        let mut weight = zeroed(matrices.first().map_or(0, |matrix| matrix.weight.len));
        let mut packed = Vec::new();
        for matrix in matrices {
            let inside = |spec: &&ParameterSpec| overlap(spec.span, matrix.weight).is_some();
            let parts: Vec<&ParameterSpec> = parameters.specs().iter().filter(inside).collect();
            let layer = match units && parts.iter().all(|part| self.is_int8(part)) {
                true => PackedLayer::Int8(self.units(&parts, &matrix)?),
                false => {
                    let weight = &mut weight[..matrix.weight.len];
                    self.values(&parts, &matrix, weight)?;
                    pack(weight, &matrix)
                }
            };
            packed.push((matrix, layer));
        }
        Ok(Packed::new(packed))
    }

    /// The values of a tensor as the buffer has them. What is stored in 8 bits is stored so.
    fn read(&self, name: &str, spec: &ParameterSpec, values: &mut [f32]) -> Result<(), LoadError> {
        self.source.read(name, values)?;
        if !self.source.is_int8(name) {
            spec.form.read(values, &spec.shape);
        }
        Ok(())
    }

    fn name(&self, part: &ParameterSpec) -> &str {
        self.names[&part.name].as_deref().expect("what is packed is in the checkpoint")
    }

    fn is_int8(&self, part: &ParameterSpec) -> bool {
        self.source.is_int8(self.name(part))
    }

    fn is_bf16(&self, spec: &ParameterSpec) -> bool {
        self.source.is_bf16(self.name(spec))
    }

    /// The values of a tensor that is stored in bf16.
    fn bf16(&self, spec: &ParameterSpec) -> Result<Vec<Bf16>, LoadError> {
        let mut bits = zeroed(spec.span.len);
        self.source.read_bf16(self.name(spec), &mut bits)?;
        Ok(bits)
    }

    /// The values of a matrix.
    fn values(&self, parts: &[&ParameterSpec], matrix: &LinearSpec, weight: &mut [f32]) -> Result<(), LoadError> {
        let mut rest = weight;
        for part in parts {
            let range = overlap(part.span, matrix.weight).expect("a part");
            let own = rest.split_off_mut(..range.len()).expect("the parts of a matrix are as long as it is");
            if range.len() == part.span.len {
                self.read(self.name(part), part, own)?;
            } else {
                let mut values = vec![0.0; part.span.len];
                self.read(self.name(part), part, &mut values)?;
                own.copy_from_slice(&values[range]);
            }
        }
        Ok(())
    }

    /// A matrix that is stored in 8 bits.
    fn units(&self, parts: &[&ParameterSpec], matrix: &LinearSpec) -> Result<Int8Weight, LoadError> {
        let (mut units, mut scales) = (Vec::new(), Vec::new());
        for part in parts {
            let (own, own_scales) = self.source.read_units(self.name(part))?;
            let range = overlap(part.span, matrix.weight).expect("a part");
            scales.extend_from_slice(&own_scales[range.start / matrix.inputs..range.end / matrix.inputs]);
            units.extend_from_slice(&own[range]);
        }
        Ok(Int8Weight::new(&units, scales, matrix.inputs))
    }
}

/// What of `part` lies in `whole`, counted from the start of `part`.
fn overlap(part: Span, whole: Span) -> Option<std::ops::Range<usize>> {
    let start = part.start.max(whole.start);
    let end = part.range().end.min(whole.range().end);
    (start < end).then(|| start - part.start..end - part.start)
}

fn check_shape(
    source: &dyn TensorSource,
    spec: &ParameterSpec,
    (name, stored): (String, String),
    found: Vec<usize>,
) -> Result<String, LoadError> {
    let expected = if source.is_int8(&name) { spec.buffer_shape() } else { spec.shape.clone() };
    if found == expected {
        return Ok(name);
    }
    let path = source.path().into();
    Err(WeightError::Shape { path, tensor: stored, expected, found }.into())
}

fn missing(source: &dyn TensorSource, spec: &ParameterSpec) -> LoadError {
    let (path, tensor) = (source.path().to_path_buf(), spec.name.clone());
    match tensor.as_str() {
        "lm_head.weight" => LoadError::NoLogits { path, tensor },
        _ => WeightError::Missing { path, tensor, shape: spec.shape.clone() }.into(),
    }
}
