//! From what was asked to what a run will do: the decisions that need the data and the base, in one place for every caller.

use super::start::Opened;
use super::{
    Asked, Example, Extent, Features, HeldOutData, Recipe, Settings, Start, Starts, TrainError, compare_starts,
};
use crate::models::{AttributeHead, ClassifierSource, Model};

/// What is known before a run is planned.
pub struct Given<'a> {
    /// What was asked for.
    pub asked: &'a Asked,
    /// What is learnt from.
    pub examples: &'a [Example],
    /// Where held-out data come from.
    pub held_out: HeldOutData,
    /// Where the head of the base came from.
    pub head: ClassifierSource,
    /// The ratings that are learnt, if it is those.
    pub attributes: Option<AttributeHead>,
    /// Whether the weights of several runs will be averaged.
    pub ensemble: bool,
    /// The settings of the run that is continued: it has chosen its start.
    pub resumed: Option<Settings>,
}

/// What a run will do.
pub struct Plan {
    /// Its settings.
    pub settings: Settings,
    /// What it starts from.
    pub start: Start,
    /// What the two heads of a judge as a base are worth, where both were tried.
    pub compared: Option<Starts>,
    /// The features that were read for that.
    pub features: Features,
}

/// Decides what a run will do. The model stays as it is, but for being packed where features were read.
///
/// # Errors
/// A setting that makes no sense for these data or this base; features or losses that are not finite.
pub fn plan(given: &Given, model: &mut Model) -> Result<Plan, TrainError> {
    if given.attributes.as_ref().is_some_and(|head| head.centred) && model.head_out().bias.len == 0 {
        return Err(TrainError::NoBiases { family: model.config.family().into() });
    }
    let mut features = Features::default();
    let own = Start { new_head: given.head == ClassifierSource::New, reopened: false, width: model.config.hidden() };
    let extent = Extent::of(given.examples, given.asked.group_size_or_default(), given.held_out, own);
    let (start, compared) = choose_start(given, extent, model, &mut features)?;
    let decided = given.asked.decide(Extent { start, ..extent })?;
    let settings = Settings {
        head_first: decided.head_first && given.attributes.is_none(),
        refit_head: decided.refit_head && !given.ensemble, // The average is measured on what all of them held out.
        attributes: given.attributes.clone(),
        ..decided
    };
    check_layers(&settings, model)?;
    check_frozen(&settings, model)?;
    Ok(Plan { settings, start, compared, features })
}

/// A judge as a base is tried with its own head and with a new one over its lower layers, where the head comes first. A run
/// that is continued has chosen.
fn choose_start(
    given: &Given,
    extent: Extent,
    model: &mut Model,
    features: &mut Features,
) -> Result<(Start, Option<Starts>), TrainError> {
    let own = extent.start;
    if given.attributes.is_some() || given.asked.lora.is_some() {
        return Ok((own, None));
    }
    let settings = given.asked.decide(extent)?;
    if own.new_head || !settings.head_first || settings.recipe != Recipe::Default {
        return Ok((own, None));
    }
    if let Some(Settings { new_head, reopened, .. }) = given.resumed {
        return Ok((Start { new_head, reopened, ..own }, None));
    }
    let compared = compare_starts(model, &settings, given.examples, features)?;
    let reopens = compared.is_some_and(|starts| starts.reopens());
    Ok((Start { new_head: reopens, reopened: reopens, ..own }, compared))
}

/// Refuses to train more layers than there are once the head stands.
fn check_frozen(settings: &Settings, model: &Model) -> Result<(), TrainError> {
    let Some(asked) = settings.freeze else { return Ok(()) };
    let mut opened = model.clone();
    settings.open_head(&mut opened);
    match opened.config.layers() {
        most if asked > most => Err(TrainError::TooManyTrained { asked, most }),
        _ => Ok(()),
    }
}

/// Refuses a number of layers that could not be kept, before anything is trained. The base of adapters has no others.
fn check_layers(settings: &Settings, model: &Model) -> Result<(), TrainError> {
    let Some(asked) = settings.keep_layers.filter(|_| settings.lora.is_none()) else { return Ok(()) };
    match settings.open_head(&mut model.clone()) {
        Opened::HeadAndLastLayer { kept } if asked > kept => {
            Err(TrainError::LayersToKeep { asked, fewest: 0, most: kept, of: kept + 1 })
        }
        Opened::LowerLayers { kept, of } if asked != kept => {
            Err(TrainError::LayersToKeep { asked, fewest: 1, most: of, of })
        }
        Opened::HeadAndLastLayer { .. } | Opened::LowerLayers { .. } => Ok(()),
        Opened::Nothing | Opened::Head => Err(TrainError::AllLayers { asked }),
    }
}
