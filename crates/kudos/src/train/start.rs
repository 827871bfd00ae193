//! What training makes of a base before its first step: a new head, and which layers it reads.
//!
//! A judge may be a base too, with its own head, or a new one over its lower layers. What a judge's upper layers say is
//! what its own rankings were about. For rankings of another kind its lower layers can say more, and its head, which
//! regularisation pulls to, is then in the way (docs/recipe.md). Both are tried as heads on frozen features, and the loss
//! in cross-validation decides.

use super::head::fit_head;
use super::{Example, Features, Settings, TrainError};
use crate::models::{Model, Norms, Workspace};
use crate::nn::{Activation, LinearSpec, NormSpec, Role, Span};
use std::collections::HashMap;

/// Layers that are kept in any case below a new last one: a judge of few layers is the lower half of a sentence encoder
/// already.
const FEWEST_LAYERS: usize = 3;

/// What [`open_head`] made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Nothing: the head's first layer was trained, or no tanh follows it.
    Nothing,
    /// The head's first layer.
    Head,
    /// It and a new last layer that gives the first token the mean of all, above so many layers of the base.
    HeadAndLastLayer {
        /// Layers that were kept below it.
        kept: usize,
    },
    /// A head above the lower layers of a decoder or of MPNet.
    LowerLayers {
        /// Layers that were kept.
        kept: usize,
        /// How many the base has.
        of: usize,
    },
}

/// What the two heads are worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Starts {
    /// Loss in cross-validation of the base's own head, fitted to the examples.
    pub own: f64,
    /// Of a new head over its lower layers, or over all layers of a decoder.
    pub reopened: f64,
    /// How many lower layers these are; none are dropped of a decoder.
    pub kept: Option<usize>,
}

impl Starts {
    /// Whether the new head is the better start.
    pub fn reopens(&self) -> bool {
        self.reopened < self.own
    }
}

/// Fits both heads to the examples; `None` for a base that has no lower layers to read the mean of. A new head of a decoder
/// reads what its own reads, and differs in what it is drawn to: zero, and not what the base says. Only the settings'
/// precision and number of layers matter. `features` are those of the better start afterwards, and the model is packed for
/// that precision.
///
/// # Errors
/// A text with tokens that the model does not have; features or losses that are not finite.
pub fn compare_starts(
    model: &mut Model,
    settings: &Settings,
    examples: &[Example],
    features: &mut Features,
) -> Result<Option<Starts>, TrainError> {
    let layer = model.head_out().weight;
    let prior = model.parameters.values[layer.range()].to_vec();
    let zero = vec![0.0; layer.len];
    if model.config.decoder().is_some() {
        let own = cross_validated(model, settings, examples, &prior, features)?;
        let reopened = cross_validated(model, settings, examples, &zero, features)?;
        return Ok(Some(Starts { own, reopened, kept: None }));
    }
    let mut opened = model.clone();
    let Opened::HeadAndLastLayer { kept } = open_anew(&mut opened, settings.keep_layers) else { return Ok(None) };
    let mut lower = Features::default();
    let own = cross_validated(model, settings, examples, &prior, features)?;
    let reopened = cross_validated(&mut opened, settings, examples, &zero, &mut lower)?;
    let starts = Starts { own, reopened, kept: Some(kept) };
    if starts.reopens() {
        *features = lower;
    }
    Ok(Some(starts))
}

fn cross_validated(
    model: &mut Model,
    settings: &Settings,
    examples: &[Example],
    prior: &[f32],
    features: &mut Features,
) -> Result<f64, TrainError> {
    let precision = model.precision(settings.precision);
    model.pack_for_training(precision);
    let examples: Vec<&Example> = examples.iter().collect();
    let features = features.of_examples(model, precision, &examples, &mut Workspace::default())?;
    let head = fit_head(&examples, &features, prior);
    match head.not_finite() {
        Some(value) => Err(TrainError::Head { value }),
        None => Ok(head.loss),
    }
}

/// Makes the last `count` layers new, as an untrained model has them: what pretraining left there is the most specific to
/// its own task (Zhang et al. 2021, "Revisiting few-sample BERT fine-tuning").
pub fn renew_top_layers(model: &mut Model, count: usize, seed: u64) {
    let top = model.config.layers().saturating_sub(count);
    for index in 0..model.parameters.specs().len() {
        if matches!(model.parameters.specs()[index].role, Role::Layer(layer) if layer >= top) {
            model.parameters.initialise(index, seed);
        }
    }
}

/// Makes the head's first layer, between the first token and the output, the identity if it was never trained: its
/// biases are all 0. A random one hides most of what the encoder says of a response (docs/recipe.md). Only where
/// tanh follows; a rectifier (DistilBERT) would cut half of the identity away. Says what was changed.
///
/// BERT's pretraining reads the first token through this very layer, so where that was not trained the first token was
/// never read: then a last layer that gives it the mean of all tokens stands above the lower `keep` layers, half of them
/// if it is `None`; what is above is dropped. A frozen head finds more there than higher up, and fine-tuning does not make
/// up for it (docs/recipe.md). RoBERTa's pretraining has no such layer, so its absence says nothing there.
///
/// A decoder and MPNet keep their lower half too, or `keep` layers: the upper layers say more of the next word than of the
/// text (docs/recipe.md).
pub fn open_head(model: &mut Model, keep: Option<usize>) -> Opened {
    if model.config.decoder().is_some() {
        return keep_lower(model, keep);
    }
    let Some((dense, _)) = model.head_dense() else { return Opened::Nothing };
    if model.parameters.values[dense.bias.range()].iter().all(|b| *b == 0.0) {
        open_anew(model, keep)
    } else {
        Opened::Nothing
    }
}

/// The same where the head's first layer was trained: for a new head that reads a judge's lower layers.
pub fn open_anew(model: &mut Model, keep: Option<usize>) -> Opened {
    if model.config.decoder().is_some() {
        return if keep.is_some() { keep_lower(model, keep) } else { Opened::Nothing };
    }
    let Some((LinearSpec { weight, bias, .. }, activation)) = model.head_dense() else { return Opened::Nothing };
    if activation != Activation::Tanh {
        return Opened::Nothing;
    }
    fill_identity(model, weight);
    model.parameters.values[bias.range()].fill(0.0);
    let layers = match model.config.encoder() {
        Some(config) if model.config.family() == "bert" => config.layers,
        Some(_) if model.config.family() == "mpnet" => return keep_lower(model, keep),
        _ => return Opened::Head,
    };
    let kept = keep.unwrap_or(half(layers)).min(layers - 1);
    keep_layers(model, kept + 1);
    read_mean(model);
    Opened::HeadAndLastLayer { kept }
}

fn half(layers: usize) -> usize {
    layers.div_ceil(2).max(FEWEST_LAYERS)
}

fn keep_lower(model: &mut Model, keep: Option<usize>) -> Opened {
    let of = model.config.layers();
    let kept = keep.unwrap_or(half(of)).clamp(1, of);
    if kept < of {
        keep_layers(model, kept);
    }
    Opened::LowerLayers { kept, of }
}

/// Drops all layers but the lowest `count`.
pub(super) fn keep_layers(model: &mut Model, count: usize) {
    let config = model.config.clone().with_layers(count);
    let mut smaller = Model::declare(config).expect("fewer layers are no larger");
    smaller.turns = std::mem::take(&mut model.turns);
    smaller.parameters.allocate();
    let specs: HashMap<&str, Span> = model.parameters.specs().iter().map(|s| (s.name.as_str(), s.span)).collect();
    for spec in smaller.parameters.specs().to_vec() {
        let from = specs[spec.name.as_str()].range();
        smaller.parameters.values[spec.span.range()].copy_from_slice(&model.parameters.values[from]);
    }
    *model = smaller;
}

/// Makes the last layer give the first token the mean of what all tokens have below it: queries of 0 attend to every
/// token alike, values pass unchanged, and the feed-forward part adds nothing until it is trained. Keys and the way up
/// stay.
fn read_mean(model: &mut Model) {
    let last = model.last_layer().clone();
    let width = last.attention_out.outputs;
    let [query, value] = [0, 2].map(|part| last.qkv.rows(part * width..(part + 1) * width));
    for span in [query.weight, query.bias, value.bias, last.attention_out.bias, last.down.weight, last.down.bias] {
        model.parameters.values[span.range()].fill(0.0);
    }
    for span in [value.weight, last.attention_out.weight] {
        fill_identity(model, span);
    }
    let Norms::Post(norms) = last.norms else { unreachable!("BERT norms after its parts") };
    for NormSpec { gamma, beta, .. } in norms {
        model.parameters.values[gamma.range()].fill(1.0);
        beta.into_iter().for_each(|beta| model.parameters.values[beta.range()].fill(0.0));
    }
}

/// Makes a square weight the identity.
fn fill_identity(model: &mut Model, weight: Span) {
    let rows = model.parameters.values[weight.range()].chunks_exact_mut(model.config.hidden()).enumerate();
    rows.for_each(|(i, row)| row.iter_mut().enumerate().for_each(|(j, w)| *w = f32::from(u8::from(i == j))));
}
