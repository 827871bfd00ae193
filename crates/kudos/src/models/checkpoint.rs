//! Loading a checkpoint into a model: strict, with the one licensed gap that a base has no head.

use super::config::{Config, ConfigError};
use super::encoder::Model;
use crate::nn::weights::{Checkpoint, INT8_FILE, Raw, SCALE_SUFFIX, WeightError, write_raw};
use crate::nn::{LinearSpec, Packed, PackedLayer, Place, Precision, Role, Span};
use kernels::gemm::{Int8Weight, quantize_rows, quantize_weights};
use serde_json::{Map, Value};
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
    /// A base where a judge is needed.
    #[error("{path}: no classification head (`{tensor}` is missing): this is a base, not a judge; train one with `kudos train DATA --base {}`", path.parent().unwrap_or(Path::new(".")).display())]
    NoHead {
        /// File.
        path: PathBuf,
        /// First missing tensor.
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
    dir: &Path,
    names: &[String],
    seed: u64,
    new_head: bool,
) -> Result<(Model, ClassifierSource), LoadError> {
    let new_head = new_head || Config::read(dir)?.label_names() != names;
    load(dir, LoadOptions::Attributes { seed, new_head, labels: names.len() })
}

/// Loads the model of a directory with `config.json` and safetensors. Weights that are stored in 8 bits are widened: the
/// model computes in f32 what they say.
///
/// # Errors
/// [`LoadError`] for a config or tensors that do not describe exactly this model.
pub fn load(dir: &Path, options: LoadOptions) -> Result<(Model, ClassifierSource), LoadError> {
    let mut config = Config::read(dir)?;
    let checkpoint = Checkpoint::open(dir)?;
    let source = head_source(&config, &checkpoint, options)?;
    if let Some(NewHead { labels, .. }) = options.base() {
        if source == ClassifierSource::New {
            set_labels(&mut config, labels);
        }
        if config.labels != labels {
            return Err(LoadError::Labels { path: dir.into(), found: config.labels, wanted: labels });
        }
    }
    let mut model = Model::declare(config)?;
    let sources = match_tensors(&model, &checkpoint, source)?;
    model.parameters.allocate();
    fill(&mut model, &checkpoint, &sources, options)?;
    Ok((model, source))
}

/// Loads a judge to score with. Weights that are packed for the precision are read tensor by tensor, packed and dropped,
/// so they are never in memory twice and have no place in the flat buffer.
///
/// # Errors
/// As [`load`].
pub(super) fn load_for_scoring(dir: &Path, asked: Option<Precision>) -> Result<(Model, Precision), LoadError> {
    let config = Config::read(dir)?;
    let checkpoint = Checkpoint::open(dir)?;
    let source = head_source(&config, &checkpoint, LoadOptions::Judge)?;
    let mut model = Model::declare(config.clone())?;
    let sources = match_tensors(&model, &checkpoint, source)?;
    let stored_int8 = sources.iter().flatten().any(|name| checkpoint.is_int8(name));
    let precision = asked.unwrap_or(if stored_int8 { Precision::Int8 } else { Precision::best() });
    let precision = model.precision(precision);
    if precision != Precision::F32 {
        model = Model::declare_with(config, Place::Packed)?;
    }
    model.parameters.allocate();
    let mut parts: Vec<(Span, &str)> = Vec::new();
    for (spec, source) in model.parameters.specs().iter().zip(&sources) {
        parts.push((spec.span, source.as_deref().expect("a judge has no new parameters")));
    }
    let mut packed = Vec::new();
    if precision != Precision::F32 {
        for layer in model.packed_layers() {
            let inside = |span: &Span| layer.weight.range().contains(&span.start);
            let own: Vec<_> = parts.iter().filter(|(span, _)| inside(span)).map(|(_, name)| *name).collect();
            packed.push((layer, read_layer(&checkpoint, &own, &layer, precision)?));
            parts.retain(|(span, _)| !inside(span));
        }
    }
    for (span, name) in parts {
        checkpoint.read(name, &mut model.parameters.values[span.range()])?;
    }
    model.packed = Packed::new(packed);
    Ok((model, precision))
}

/// Reads and packs one layer, whose weight may be several tensors one after the other.
fn read_layer(
    checkpoint: &Checkpoint,
    names: &[&str],
    layer: &LinearSpec,
    precision: Precision,
) -> Result<PackedLayer, WeightError> {
    if precision == Precision::Int8 && names.iter().all(|name| checkpoint.is_int8(name)) {
        let (mut units, mut scales) = (Vec::new(), Vec::new());
        for name in names {
            let (more_units, more_scales) = checkpoint.read_units(name)?;
            units.extend(more_units);
            scales.extend(more_scales);
        }
        return Ok(PackedLayer::Int8(Int8Weight::new(&units, scales, layer.inputs)));
    }
    let mut weight = vec![0.0; layer.weight.len];
    let mut rest = weight.as_mut_slice();
    for name in names {
        let len = checkpoint.tensors[*name].shape.iter().product();
        let (own, after) = rest.split_at_mut(len);
        checkpoint.read(name, own)?;
        rest = after;
    }
    Ok(PackedLayer::for_scoring(&weight, layer, precision))
}

/// Stores a judge's weights in 8 bits with a scale per row: the linear layers inside the encoder and the table of words.
/// The other tensors, one percent of all, stay f32.
///
/// # Errors
/// [`LoadError`] for a directory that is no judge, or an output that cannot be written.
pub fn quantize(dir: &Path, output: &Path) -> Result<Model, LoadError> {
    let (model, _) = load(dir, LoadOptions::Judge)?;
    let layers = model.packed_layers();
    let is_matrix = |span: Span| layers.iter().any(|layer| layer.weight.range().contains(&span.start));
    let mut quantized = Vec::new();
    for spec in model.parameters.specs() {
        let values = &model.parameters.values[spec.span.range()];
        quantized.push(match (is_matrix(spec.span), spec.sparse) {
            (true, _) => Some(quantize_weights(values, spec.shape[1])),
            (false, true) => Some(quantize_rows(values, spec.shape[1])),
            (false, false) => None,
        });
    }
    let mut tensors = Vec::new();
    for (spec, quantized) in model.parameters.specs().iter().zip(&quantized) {
        let (name, shape) = (spec.name.clone(), spec.shape.clone());
        match quantized {
            None => {
                let bytes = bytemuck::cast_slice(&model.parameters.values[spec.span.range()]);
                tensors.push(Raw { name, dtype: "F32", shape, bytes });
            }
            Some((units, scales)) => {
                let (scale_name, rows) = (format!("{name}{SCALE_SUFFIX}"), vec![shape[0]]);
                tensors.push(Raw { name, dtype: "I8", shape, bytes: bytemuck::cast_slice(units) });
                tensors.push(Raw { name: scale_name, dtype: "F32", shape: rows, bytes: bytemuck::cast_slice(scales) });
            }
        }
    }
    write_raw(&output.join(INT8_FILE), &tensors, &[])?;
    Ok(model)
}

fn head_source(config: &Config, checkpoint: &Checkpoint, options: LoadOptions) -> Result<ClassifierSource, LoadError> {
    let model = Model::declare(config.clone())?;
    let mut head = model.parameters.specs().iter().rev().filter(|spec| spec.role >= Role::Head);
    let output = head.find(|spec| spec.name.ends_with(".weight")).expect("every family has a head");
    match (checkpoint.tensors.contains_key(&output.name), options.base()) {
        (true, None | Some(NewHead { always: false, .. })) => Ok(ClassifierSource::Checkpoint),
        (_, Some(_)) => Ok(ClassifierSource::New),
        (false, None) => Err(LoadError::NoHead { path: checkpoint.path().into(), tensor: output.name.clone() }),
    }
}

fn set_labels(config: &mut Config, labels: usize) {
    config.labels = labels;
    let label = |i: usize| format!("LABEL_{i}");
    let id2label: Map<_, _> = (0..labels).map(|i| (i.to_string(), label(i).into())).collect();
    let label2id: Map<_, _> = (0..labels).map(|i| (label(i), i.into())).collect();
    config.json.insert("id2label".into(), id2label.into());
    config.json.insert("label2id".into(), label2id.into());
    config.json.remove("num_labels");
    config.json.insert("problem_type".into(), Value::Null);
}

/// For each parameter the tensor that fills it, or `None` for a new one. Every tensor must find its use.
fn match_tensors(
    model: &Model,
    checkpoint: &Checkpoint,
    source: ClassifierSource,
) -> Result<Vec<Option<String>>, WeightError> {
    let mut left: std::collections::BTreeSet<&str> = checkpoint.tensors.keys().map(String::as_str).collect();
    let mut sources = Vec::new();
    for spec in model.parameters.specs() {
        let new_head = source == ClassifierSource::New && spec.role >= Role::Head;
        match find(model, &left, &spec.name) {
            Some(name) if new_head && (spec.role == Role::Output || checkpoint.expect(name, &spec.shape).is_err()) => {
                left.remove(name);
                sources.push(None);
            }
            Some(name) => {
                checkpoint.expect(name, &spec.shape)?;
                left.remove(name);
                if checkpoint.is_int8(name) {
                    left.remove(format!("{name}{SCALE_SUFFIX}").as_str());
                }
                sources.push(Some(name.to_owned()));
            }
            None if new_head => sources.push(None),
            None => return Err(checkpoint.expect(&spec.name, &spec.shape).expect_err("it was not found")),
        }
    }
    match left.into_iter().find(|name| !is_ignorable(model, name)) {
        None => Ok(sources),
        Some(name) => Err(WeightError::Unexpected {
            path: checkpoint.path().into(),
            tensor: name.into(),
            shape: checkpoint.tensors[name].shape.clone(),
        }),
    }
}

/// The stored name of a parameter: as declared, without the encoder's prefix (bare encoders), and with
/// the `gamma` and `beta` of checkpoints that came from TensorFlow.
fn find<'a>(model: &Model, left: &std::collections::BTreeSet<&'a str>, name: &str) -> Option<&'a str> {
    let bare = name.strip_prefix(model.prefix()).unwrap_or(name);
    let old = |name: &str| match name.strip_suffix("LayerNorm.weight") {
        Some(stem) => format!("{stem}LayerNorm.gamma"),
        None => match name.strip_suffix("LayerNorm.bias") {
            Some(stem) => format!("{stem}LayerNorm.beta"),
            None => name.to_owned(),
        },
    };
    [name.to_owned(), bare.to_owned(), old(name), old(bare)].iter().find_map(|n| left.get(n.as_str()).copied())
}

fn is_ignorable(model: &Model, name: &str) -> bool {
    model.is_unused(name) || model.is_unused(&format!("{}{name}", model.prefix()))
}

fn fill(
    model: &mut Model,
    checkpoint: &Checkpoint,
    sources: &[Option<String>],
    options: LoadOptions,
) -> Result<(), WeightError> {
    for (index, source) in sources.iter().enumerate() {
        let span = model.parameters.specs()[index].span;
        match (source, options.base()) {
            (Some(name), _) => checkpoint.read(name, &mut model.parameters.values[span.range()])?,
            (None, Some(NewHead { seed, .. })) => model.parameters.initialise(index, seed),
            (None, None) => unreachable!("a judge has no new parameters"),
        }
    }
    Ok(())
}
